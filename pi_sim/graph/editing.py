"""Editing of a graph: nodes and weights change by name, and new weights follow from the model's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from pi_sim.graph.ops import Graph, Node, Op, Shape


@dataclass(frozen=True)
class WeightFold:
    """A weight that `function` computes from the values of `sources`."""

    name: str
    sources: tuple[str, ...]
    function: Callable[..., Tensor]


class Editor:
    """A graph under change: its nodes by name, in order, and its weights with their folds."""

    def __init__(self, graph: Graph) -> None:
        self.source = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.weights = dict(graph.weights)
        self.folds: dict[str, WeightFold] = {}

    def graph(self) -> Graph:
        """Return the present graph, with the weights that it reads."""
        read = {name for node in self.nodes.values() for name in node.inputs}
        weights = {name: shape for name, shape in self.weights.items() if name in read}
        return replace(self.source, nodes=list(self.nodes.values()), weights=weights)

    def needed_folds(self) -> list[WeightFold]:
        """Return the folds of all weights that are read, or that another of them needs, in order."""
        needed = set(self.graph().weights)
        for fold in reversed(self.folds.values()):
            if fold.name in needed:
                needed.update(fold.sources)
        return [fold for fold in self.folds.values() if fold.name in needed]

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read a value."""
        return [node for node in self.nodes.values() if name in node.inputs]

    def fold(self, sources: Sequence[str], shape: Shape, function: Callable[..., Tensor]) -> str:
        """Add a weight that follows from others, named after the first of them, and return its name."""
        root = sources[0].partition("#")[0]
        name = f"{root}#{sum(other.partition('#')[0] == root for other in self.folds) + 1}"
        self.folds[name] = WeightFold(name, tuple(sources), function)
        self.weights[name] = shape
        return name

    def replace_node(self, name: str, op: Op, inputs: tuple[str, ...]) -> None:
        """Replace the operation and the inputs of a node."""
        self.nodes[name] = replace(self.nodes[name], op=op, inputs=inputs)

    def remove(self, name: str, substitute: str) -> None:
        """Remove a node; its readers read the substitute instead."""
        del self.nodes[name]
        for node in self.readers(name):
            inputs = tuple(substitute if item == name else item for item in node.inputs)
            self.nodes[node.name] = replace(node, inputs=inputs)

    def insert_before(self, name: str, nodes: Sequence[Node]) -> None:
        """Insert nodes before a node."""
        items = list(self.nodes.items())
        index = next(number for number, (key, _) in enumerate(items) if key == name)
        self.nodes = dict([*items[:index], *((node.name, node) for node in nodes), *items[index:]])

    def is_table(self, name: str) -> bool:
        """Return whether a weight is the table of an embedding."""
        return any(node.op.name == "embedding" and node.inputs[0] == name for node in self.readers(name))

    def can_fold(self, node: Node) -> bool:
        """Return whether a linear map has a weight, and a bias if any, of its own."""
        return all(name in self.weights and len(self.readers(name)) == 1 for name in node.inputs[1:])

    def linear_readers(self, name: str) -> list[Node] | None:
        """Return the linear maps that read a value, at most rearranged but for its last dimension; None with others."""
        maps: list[Node] = []
        for node in self.readers(name):
            if node.op.name == "linear" and node.inputs[0] == name and self.can_fold(node):
                maps.append(node)
            elif keeps_last_dimension(node.op) and (behind := self.linear_readers(node.name)) is not None:
                maps += behind
            else:
                return None
        return maps

    def fold_map(self, node: Node, factor: str | None = None, offset: str | None = None) -> None:
        """Fold factors and offsets of a linear map's input columns, weights (k), into its weight and bias."""
        weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
        columns = self.weights[weight][-1]
        if offset:
            sources = [name for name in (bias, weight, offset) if name]
            bias = self.fold(sources, (columns,), _offset_bias if bias else _new_bias)
        if factor:
            weight = self.fold([weight, factor], self.weights[weight], lambda w, gamma: gamma.unsqueeze(-1) * w)
        inputs = (node.inputs[0], weight, *([bias] if bias else []))
        shapes = (node.op.shapes[0], self.weights[weight], *([(columns,)] if bias else []))
        self.replace_node(node.name, replace(node.op, shapes=shapes, secret=(True,) * len(inputs)), inputs)


def _offset_bias(bias: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    return bias + offset @ weight


def _new_bias(weight: Tensor, offset: Tensor) -> Tensor:
    return offset @ weight


def keeps_last_dimension(op: Op) -> bool:
    """Return whether a structural operation on one value leaves its rows as they are."""
    if op.name not in ("view", "expand", "slice", "transpose"):
        return False
    rank = len(op.shapes[0])
    touched = {op.attribute(key) % rank for key in ("dim", "dim0", "dim1") if op.attribute(key) is not None}
    return op.result_shape[-1:] == op.shapes[0][-1:] and rank - 1 not in touched
