"""The graph everyone reads: operations on secret and public tensors, in the order in which they run.

Secret are the client's tokens or pixels, the server's weights, and whatever is computed from them; shapes, masks and
positions are public. The graph knows nothing of protocols: what an operation costs and how it is computed stands
elsewhere.
"""

# MERGED: Linear maps that nothing but an opening reads: the client can round their results, so that no protocol has to.

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pi_sim.graph.vocabulary import VOCABULARY, Attribute, Shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CLIENT_ONLY", "STRUCTURAL", "VOCABULARY", "Attribute", "Graph", "Node", "Op", "Shape", "mark_client_only"]

STRUCTURAL = frozenset(name for name, operation in VOCABULARY.items() if operation.kind == "structural")
"""Operations that only rearrange elements: no protocol can make them cost anything."""


@dataclass(frozen=True)
class Op:
    """An operation at given shapes: all that its price may depend on, hence the key of the price memo."""

    name: str
    shapes: tuple[Shape, ...]
    secret: tuple[bool, ...]
    attributes: tuple[tuple[str, Attribute], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in VOCABULARY:
            raise ValueError(f"unknown operation {self.name!r}")

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in self.shapes)
        attributes = "".join(f", {key}={value}" for key, value in self.attributes)
        return f"{self.name}({shapes}{attributes})"

    @property
    def result_shape(self) -> Shape:
        """Shape of the result."""
        return VOCABULARY[self.name].result(*self.shapes, **dict(self.attributes))

    def to_json(self) -> list[Any]:
        """A JSON value that `from_json` reads back."""
        return [self.name, self.shapes, self.secret, self.attributes]

    @classmethod
    def from_json(cls, value: list[Any]) -> "Op":
        """The operation that `to_json` wrote."""
        name, shapes, secret, attributes = value
        pairs = tuple((key, tuple(item) if isinstance(item, list) else item) for key, item in attributes)
        return cls(name, tuple(map(tuple, shapes)), tuple(secret), pairs)


@dataclass(frozen=True)
class Node:
    """One operation in place: what it reads, and the module of the model that it came from."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    module: str


@dataclass
class Graph:
    """Nodes in execution order over secret inputs, secret weights and public constants.

    `weights` maps names of the state dict to shapes; `input` is the token ids' shape (B, T), empty for a model that
    reads none; `inputs` has the shapes of all other secret inputs, such as pixels or cached keys. Results are revealed
    to the client, one of them by the last node.
    """

    input: Shape
    vocabulary: int
    weights: dict[str, Shape] = field(default_factory=dict)
    constants: dict[str, "Tensor"] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, Shape] = field(default_factory=dict)

    def last_uses(self) -> dict[str, int]:
        """The index of the last node that reads each value: after it the value can be dropped."""
        return {name: index for index, node in enumerate(self.nodes) for name in node.inputs}

    def embedding_and_head(self) -> set[str]:
        """Modules at either end: the secret look-up, the linear head, and the opening of the results."""
        lookups = {node.module for node in self.nodes if node.op.name == "embedding"}
        openings = [node for node in self.nodes if node.op.name == "reveal"]
        heads = {self._last_linear(opening) for opening in openings}
        return lookups | {node.module for node in (*openings, *heads) if node}

    def _last_linear(self, opening: Node) -> Node | None:
        """The linear map that a result comes from, if nothing was added to it since."""
        by_name = {node.name: node for node in self.nodes}
        node: Node | None = opening
        while node and node.op.name != "linear":
            node = by_name.get(node.inputs[0]) if len(node.inputs) == 1 else None
        return node

    def one_hot_inputs(self) -> set[str]:
        """Inputs that are shared as plain integers, one of which is 1: what an embedding reads."""
        return {node.inputs[1] for node in self.nodes if node.op.name == "embedding"}

    def census(self) -> Iterator[tuple[str, Op]]:
        """(module, operation) of every node that a protocol might charge for."""
        return ((node.module, node.op) for node in self.nodes if node.op.name not in STRUCTURAL)


CLIENT_ONLY = ("client_only", True)
"""The attribute of such a map."""


def mark_client_only(graph: Graph) -> Graph:
    """The graph, every linear map marked whose result goes to the client alone, at most rearranged before."""
    readers = _readers_by_value(graph)
    shown = {node.name for node in graph.nodes if node.op.name == "reveal"}
    for node in reversed(graph.nodes):
        if _is_unary_rearrangement(node) and readers[node.name] and readers[node.name] <= shown:
            shown.add(node.name)
    alone = {name for name, found in readers.items() if found and found <= shown}
    graph.nodes = [
        _mark_node(node) if node.op.name == "linear" and node.name in alone else node for node in graph.nodes
    ]
    return graph


def _readers_by_value(graph: Graph) -> dict[str, set[str]]:
    """Who reads each value, by name; nobody reads a result that is in the graph for nothing."""
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.nodes:
        for name in node.inputs:
            readers[name].add(node.name)
    return readers


def _is_unary_rearrangement(node: Node) -> bool:
    """Whether it rearranges one operand; several would have to have the same fraction."""
    return node.op.name in STRUCTURAL and len(node.inputs) == 1


def _mark_node(node: Node) -> Node:
    return replace(node, op=replace(node.op, attributes=tuple(sorted({*node.op.attributes, CLIENT_ONLY}))))
