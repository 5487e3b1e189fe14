"""The graph of a model: operations on secret and public tensors, in execution order.

Secret are the client's tokens or pixels, the server's weights, and all that is computed from them; shapes, masks and
positions are public. A graph knows nothing of protocols, which compute and price its operations.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pi_sim.graph.vocabulary import VOCABULARY, Attribute, Shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "STRUCTURAL",
    "VOCABULARY",
    "Attribute",
    "Graph",
    "Node",
    "Op",
    "Shape",
    "mark_client_only",
    "mark_reused_weights",
    "place_cached_rows",
    "prune",
]

STRUCTURAL = frozenset(name for name, operation in VOCABULARY.items() if operation.kind == "structural")
"""Operations that only rearrange elements: they are free under every protocol."""


EXECUTION_ATTRIBUTES = {
    "client_only": "the result of a linear map is opened to the client alone",
    "bits": "low bits of the result's ring words that are read: 32 or 48",
    "tied": "the weight of a linear map is the transposed table of an embedding",
    "reused": "an earlier operation reads the same weight",
    "weight": "index of the operand of a product that is a weight",
    "halvings": "how often a norm halves its rows first, so that they fit their words",
    "centred": "the rows that a LayerNorm reads have mean zero",
    "causal_scores": "nobody reads the result of a product above the diagonal",
    "causal_weights": "the first factor of a product is zero above the diagonal",
    "masked": "products alone read cached rows, which are opened once, under masks that last",
    "fresh": "elements of a product's second factor, cached rows, that no product has read before",
}
"""Attributes that tell how an operation may be computed: without them its result is the same real number."""


@dataclass(frozen=True)
class Op:
    """An operation at given shapes: everything that its price may depend on, and the key of the price cache."""

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

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute."""
        return dict(self.attributes).get(name, default)

    def with_attributes(self, **attributes: Attribute) -> "Op":
        """Return the operation with further attributes, or other values of them."""
        return replace(self, attributes=tuple(sorted({**dict(self.attributes), **attributes}.items())))

    @property
    def semantics(self) -> dict[str, Attribute]:
        """The attributes that tell what is computed, not how."""
        return {name: value for name, value in self.attributes if name not in EXECUTION_ATTRIBUTES}

    @property
    def result_shape(self) -> Shape:
        """Shape of the result."""
        return VOCABULARY[self.name].result(*self.shapes, **self.semantics)

    def to_json(self) -> list[Any]:
        """Return a JSON value for `from_json`."""
        return [self.name, self.shapes, self.secret, self.attributes]

    @classmethod
    def from_json(cls, value: list[Any]) -> "Op":
        """Return the operation that `to_json` wrote."""
        name, shapes, secret, attributes = value
        pairs = tuple((key, tuple(item) if isinstance(item, list) else item) for key, item in attributes)
        return cls(name, tuple(map(tuple, shapes)), tuple(secret), pairs)


@dataclass(frozen=True)
class Node:
    """One operation in a graph: the values it reads, and the module of the model that it came from."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    module: str


@dataclass
class Graph:
    """Nodes in execution order over secret inputs, secret weights and public constants.

    `weights` maps names of the state dict to shapes; `input` is the token ids' shape (B, T), empty for a model that
    reads none; `inputs` has the shapes of all other secret inputs, such as pixels or cached keys. Results are revealed
    to the client, one of them by the last node. `cache` maps inputs of the next decoding step, keys and values by
    layer, to the nodes whose rows it finds at their end.
    """

    input: Shape
    vocabulary: int
    weights: dict[str, Shape] = field(default_factory=dict)
    constants: dict[str, "Tensor"] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, Shape] = field(default_factory=dict)
    cache: dict[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens of each sequence that are read at once: those of the input, or the most rows of attention scores."""
        rows = [
            node.op.shapes[0][-2] for node in self.nodes if node.op.name == "softmax" and len(node.op.shapes[0]) > 1
        ]
        return self.input[-1] if self.input else max(rows, default=1)

    def last_uses(self) -> dict[str, int]:
        """Return the index of the last node that reads each value, after which the value can be dropped."""
        return {name: index for index, node in enumerate(self.nodes) for name in node.inputs}

    def embedding_and_head(self) -> set[str]:
        """Return the modules of the secret look-up, the linear head, and the opening of the results."""
        lookups = {node.module for node in self.nodes if node.op.name == "embedding"}
        openings = [node for node in self.nodes if node.op.name == "reveal"]
        heads = {self._last_linear(opening) for opening in openings}
        return lookups | {node.module for node in (*openings, *heads) if node}

    def _last_linear(self, opening: Node) -> Node | None:
        """Return the linear map that a result comes from, if nothing was added since."""
        by_name = {node.name: node for node in self.nodes}
        node: Node | None = opening
        while node and node.op.name != "linear":
            node = by_name.get(node.inputs[0]) if len(node.inputs) == 1 else None
        return node

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """Shapes of all secret inputs as they are shared, by name: tokens as one-hot vectors (B, T, V)."""
        tokens = {"tokens": (*self.input, self.vocabulary)} if self.input else {}
        return tokens | self.inputs

    def one_hot_inputs(self) -> set[str]:
        """Return the inputs that an embedding reads, shared as plain integers, one of which is 1."""
        return {node.inputs[1] for node in self.nodes if node.op.name == "embedding"}

    def census(self) -> Iterator[tuple[str, Op]]:
        """Yield (module, operation) of every node that a protocol might charge for."""
        return ((node.module, node.op) for node in self.nodes if node.op.name not in STRUCTURAL)


def prune(graph: Graph) -> Graph:
    """Remove nodes from which no opened or cached result follows, with weights and constants that they alone read."""
    needed: set[str] = set()
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.op.name in ("reveal", "cache") or node.name in needed:
            needed.update(node.inputs)
            nodes.append(node)
    graph.nodes = nodes[::-1]
    graph.weights = {name: shape for name, shape in graph.weights.items() if name in needed}
    graph.constants = {name: value for name, value in graph.constants.items() if name in needed}
    return graph


def place_cached_rows(graph: Graph) -> Graph:
    """Move every node of cached rows right behind the value that it caches, and let all readers of that read it."""
    caches = {node.inputs[0]: node for node in graph.nodes if node.op.name == "cache"}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op.name == "cache":
            continue
        inputs = tuple(caches[name].name if name in caches else name for name in node.inputs)
        nodes.append(replace(node, inputs=inputs))
        if node.name in caches:
            nodes.append(caches[node.name])
    graph.nodes = nodes
    return graph


WEIGHT_READERS = ("embedding", "linear", "multiply")
"""Operations whose weight a protocol may open once in a session."""


def mark_reused_weights(graph: Graph) -> Graph:
    """Mark every operation on a weight that an earlier one has read too: it is opened once for both."""
    read: set[str] = set()
    for index, node in enumerate(graph.nodes):
        if node.op.name not in WEIGHT_READERS:
            continue
        weights = [name for name in node.inputs[:2] if name in graph.weights]
        attributes = {name: value for name, value in node.op.attributes if name != "reused"}
        if any(name in read for name in weights):
            attributes["reused"] = True
        graph.nodes[index] = replace(node, op=replace(node.op, attributes=tuple(sorted(attributes.items()))))
        read.update(weights)
    return graph


def mark_client_only(graph: Graph) -> Graph:
    """Mark every linear map whose result, at most rearranged, is opened to the client alone; return the graph.

    The client can round such results itself, so that no protocol has to.
    """
    readers = _readers_by_value(graph)
    client_values = {node.name for node in graph.nodes if node.op.name == "reveal"}
    for node in reversed(graph.nodes):
        if _is_unary_rearrangement(node) and readers[node.name] and readers[node.name] <= client_values:
            client_values.add(node.name)
    client_only = {name for name, nodes in readers.items() if nodes and nodes <= client_values}
    graph.nodes = [
        _mark_node(node) if node.op.name == "linear" and node.name in client_only else node for node in graph.nodes
    ]
    return graph


def _readers_by_value(graph: Graph) -> dict[str, set[str]]:
    """Return the nodes that read each value, by name; an unused result has none."""
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.nodes:
        for name in node.inputs:
            readers[name].add(node.name)
    return readers


def _is_unary_rearrangement(node: Node) -> bool:
    """Return whether a node rearranges one operand; several would need the same fraction."""
    return node.op.name in STRUCTURAL and len(node.inputs) == 1


def _mark_node(node: Node) -> Node:
    """Return the node with the attribute `client_only`."""
    return replace(node, op=node.op.with_attributes(client_only=True))
