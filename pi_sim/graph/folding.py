"""Folding: a graph rewritten so that it costs less under secure computation, exact in real arithmetic.

The learned factors and offsets of norms, the centring of LayerNorm and the factor of attention scores move into weights
of neighbouring linear maps. A `WeightFold` tells how such a weight follows from the model's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.ops import STRUCTURAL, Graph, Node, Op, Shape
from pi_sim.graph.vocabulary import VOCABULARY


@dataclass(frozen=True)
class WeightFold:
    """A weight that `function` computes from the values of `sources`."""

    name: str
    sources: tuple[str, ...]
    function: Callable[..., Tensor]


@dataclass(frozen=True)
class Step:
    """One pass over a graph: what it did at how many places, and the graph after it."""

    name: str
    description: str
    count: int
    graph: Graph


@dataclass(frozen=True)
class Rewriting:
    """A rewritten graph, the folds that compute its weights in order, and the steps that led to it."""

    graph: Graph
    folds: list[WeightFold]
    steps: list[Step]


def rewrite(graph: Graph, names: Sequence[str]) -> Rewriting:
    """Apply the named passes in order. Raises `UsageError` for an unknown name."""
    editor, steps = Editor(graph), list[Step]()
    for name in names:
        if name not in PASSES:
            raise UsageError(f"there is no rewriting pass {name!r}; known: {', '.join(PASSES)}, widths.")
        description, apply_pass = PASSES[name]
        steps.append(Step(name, description, apply_pass(editor), editor.graph()))
    return Rewriting(editor.graph(), editor.needed_folds(), steps)


def fold_weights(folds: Sequence[WeightFold], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's weights and all folded ones, which are computed in double precision."""
    values = dict(weights)
    for fold in folds:
        dtype = values[fold.sources[0]].dtype
        operands = [values[name].double() for name in fold.sources]
        values[fold.name] = fold.function(*operands).to(dtype)
    return values


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
            elif _keeps_last_dimension(node.op) and (behind := self.linear_readers(node.name)) is not None:
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


def _keeps_last_dimension(op: Op) -> bool:
    """Return whether a structural operation on one value leaves its rows as they are."""
    if op.name not in ("view", "expand", "slice", "transpose"):
        return False
    rank = len(op.shapes[0])
    touched = {op.attribute(key) % rank for key in ("dim", "dim0", "dim1") if op.attribute(key) is not None}
    return op.result_shape[-1:] == op.shapes[0][-1:] and rank - 1 not in touched


def rearrange_weights(editor: Editor) -> int:
    """Fold structural operations on a weight; a transposed table of an embedding becomes a tied map's weight."""
    count = 0
    for node in list(editor.nodes.values()):
        if node.op.name not in STRUCTURAL or len(node.inputs) != 1 or node.inputs[0] not in editor.weights:
            continue
        (weight,) = node.inputs
        if editor.is_table(weight) and node.op.name == "transpose":
            for reader in editor.readers(node.name):
                if reader.op.name == "linear" and reader.inputs[1] == node.name:
                    editor.nodes[reader.name] = replace(reader, op=reader.op.with_attributes(tied=True))
        else:
            name = editor.fold([weight], node.op.result_shape, _reference(node.op))
            editor.remove(node.name, name)
            count += 1
    return count


def _reference(op: Op) -> Callable[..., Tensor]:
    return lambda value: VOCABULARY[op.name].reference(value, **op.semantics).contiguous()


def fold_norms(editor: Editor) -> int:
    """Fold factors and offsets per column, of norms and of elementwise products and sums, into the maps behind them."""
    count = 0
    for node in reversed(list(editor.nodes.values())):
        if node.op.name in ("layernorm", "rmsnorm") and len(node.inputs) > 1:
            count += _fold_norm(editor, node)
        elif (operand := _column_weight(editor, node)) is not None:
            count += _fold_columns(editor, node, operand)
    return count


def _fold_norm(editor: Editor, node: Node) -> bool:
    maps = editor.linear_readers(node.name)
    if not maps or not all(name in editor.weights for name in node.inputs[1:]):
        return False
    gamma, beta = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    for reader in maps:
        editor.fold_map(reader, gamma, beta)
    op = replace(node.op, shapes=node.op.shapes[:1], secret=(True,))
    editor.replace_node(node.name, op, node.inputs[:1])
    return True


def _column_weight(editor: Editor, node: Node) -> int | None:
    """Return the index of the operand of a product or sum that is a weight per column of the result, if any."""
    if node.op.name not in ("multiply", "add"):
        return None
    columns = node.op.result_shape[-1:]
    for index, (name, shape) in enumerate(zip(node.inputs, node.op.shapes, strict=True)):
        if name in editor.weights and shape == columns and node.op.shapes[1 - index] == node.op.result_shape:
            return index
    return None


def _fold_columns(editor: Editor, node: Node, operand: int) -> bool:
    maps = editor.linear_readers(node.name)
    if not maps:
        return False
    weight = node.inputs[operand]
    for reader in maps:
        factor, offset = (weight, None) if node.op.name == "multiply" else (None, weight)
        editor.fold_map(reader, factor, offset)
    editor.remove(node.name, node.inputs[1 - operand])
    return True


HOMOGENEOUS = {"view", "transpose", "slice", "concat", "expand", "neg", "add", "scale", "scale_by", "mask", "sum"}
"""Operations that commute with a factor of all their secret operands."""


def fold_scales(editor: Editor) -> int:
    """Fold public factors, such as that of attention scores, into the linear maps that they come from."""
    count = 0
    for node in list(editor.nodes.values()):
        if node.op.name == "scale":
            count += _fold_scale(editor, node)
    return count


def _fold_scale(editor: Editor, node: Node) -> bool:
    value = editor.nodes.get(node.inputs[0])
    starts = [(node.inputs[0], node.name)]
    if value and value.op.name == "matmul" and len(editor.readers(value.name)) == 1:
        starts = [(name, value.name) for name in value.inputs]
    for start, end in starts:
        columns = _ScaledColumns(editor, end)
        if columns.visit(start) and columns.is_closed():
            columns.fold(float(node.op.attribute("factor")))
            editor.remove(node.name, node.inputs[0])
            return True
    return False


class _ScaledColumns:
    """The columns of linear maps from which a value comes by homogeneous operations alone, read by nothing else."""

    def __init__(self, editor: Editor, end: str) -> None:
        self.editor, self.end = editor, end
        self.region: set[str] = set()
        self.columns: dict[str, tuple[int, int]] = {}

    def visit(self, name: str) -> bool:
        """Walk back to the maps of a value; return False where it comes from anything else."""
        if name in self.region or name in self.columns:
            return True
        node = self.editor.nodes.get(name)
        if node is None:
            return False
        if node.op.name == "linear":
            self.columns[name] = (0, node.op.result_shape[-1])
            return self.editor.can_fold(node) and not node.op.attribute("tied")
        if node.op.name not in HOMOGENEOUS:
            return False
        self.region.add(name)
        if fused := self._sliced_map(node):
            self.columns[fused.name] = (node.op.attribute("start"), node.op.attribute("stop"))
            return self.editor.can_fold(fused)
        operands = [name for name, secret in zip(node.inputs, node.op.secret, strict=True) if secret]
        return all(self.visit(operand) for operand in operands) and (node.op.name != "add" or all(node.op.secret))

    def _sliced_map(self, node: Node) -> Node | None:
        """Return the linear map of which a node takes some columns, such as the queries of a fused map."""
        if node.op.name != "slice" or node.op.attribute("dim") != len(node.op.shapes[0]) - 1:
            return None
        source = self.editor.nodes.get(node.inputs[0])
        while source and source.op.name == "view" and _keeps_last_dimension(source.op):
            source = self.editor.nodes.get(source.inputs[0])
        return source if source and source.op.name == "linear" else None

    def is_closed(self) -> bool:
        """Return whether nothing else reads the values on the way, or a whole map of which all columns are scaled."""
        inside = {*self.region, self.end}
        whole = {
            name
            for name, (start, stop) in self.columns.items()
            if (start, stop) == (0, self.editor.nodes[name].op.result_shape[-1])
        }
        return all(reader.name in inside for name in {*self.region, *whole} for reader in self.editor.readers(name))

    def fold(self, factor: float) -> None:
        """Scale the columns of all maps, and their biases."""
        for name, (start, stop) in self.columns.items():
            node = self.editor.nodes[name]

            def scale_columns(value: Tensor, start: int = start, stop: int = stop) -> Tensor:
                scaled = value.clone()
                scaled[..., start:stop] *= factor
                return scaled

            names = [self.editor.fold([item], self.editor.weights[item], scale_columns) for item in node.inputs[1:]]
            self.editor.replace_node(name, node.op, (node.inputs[0], *names))


def centre(value: Tensor) -> Tensor:
    """Return rows minus their means."""
    return value - value.mean(-1, keepdim=True)


def centre_and_append_mean(table: Tensor) -> Tensor:
    """Return rows minus their means, and the means as a further column."""
    return torch.cat([centre(table), table.mean(-1, keepdim=True)], -1)


def fold_centring(editor: Editor) -> int:
    """Fold the centring of LayerNorms into the maps and tables that write what they read."""
    count = 0
    pending = {node.name for node in editor.nodes.values() if node.op.name == "layernorm"}
    while pending:
        stream = _Stream(editor)
        stream.collect(editor.nodes[min(pending)].inputs[0])
        pending -= stream.norms or {min(pending)}
        if stream.norms and stream.is_closed():
            stream.centre()
            count += len(stream.norms)
    return count


class _Stream:
    """A residual stream: all values that are connected by sums, and by what reads them.

    `sources` are the maps, tables and vectors that it is the sum of, `norms` the LayerNorms that read it.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.values: set[str] = set()
        self.sources: set[str] = set()
        self.norms: set[str] = set()
        self.has_other_readers = False

    def collect(self, name: str) -> None:
        """Add a value, what it is the sum of, and the sums that read it."""
        if name in self.values:
            return
        self.values.add(name)
        node = self.editor.nodes.get(name)
        if node is not None and self._is_inside(node):
            for operand, secret in zip(node.inputs, node.op.secret, strict=True):
                if secret:
                    self.collect(operand)
        else:
            self.sources.add(name)
        for reader in self.editor.readers(name):
            if reader.op.name == "layernorm" and reader.inputs[0] == name:
                self.norms.add(reader.name)
            elif self._is_inside(reader):
                self.collect(reader.name)
            else:
                self.has_other_readers = True

    def _is_inside(self, node: Node) -> bool:
        is_sum = node.op.name == "add" and all(node.op.secret) and len({s[-1:] for s in node.op.shapes}) == 1
        return is_sum or node.op.name == "scale" or _keeps_last_dimension(node.op)

    def is_closed(self) -> bool:
        """Return whether only LayerNorms read the stream, and all that writes it can be centred."""
        return not self.has_other_readers and all(self._can_centre(name) for name in self.sources)

    def _can_centre(self, name: str) -> bool:
        if name in self.editor.weights:
            return len(self.editor.readers(name)) == 1
        node = self.editor.nodes.get(name)
        if node is None or node.op.name not in ("linear", "embedding", "lookup"):
            return False
        if node.op.name == "linear":
            return self.editor.can_fold(node) and not node.op.attribute("tied")
        others = [reader for reader in self.editor.readers(node.inputs[0]) if reader.name != name]
        return all(self._is_tied_transpose(reader) for reader in others)

    def _is_tied_transpose(self, node: Node) -> bool:
        readers = self.editor.readers(node.name)
        return node.op.name == "transpose" and bool(readers) and all(r.op.attribute("tied") for r in readers)

    def centre(self) -> None:
        """Centre all that writes the stream, and mark the norms."""
        for name in self.sources:
            self._centre_source(name)
        for name in self.norms:
            node = self.editor.nodes[name]
            self.editor.nodes[name] = replace(node, op=node.op.with_attributes(centred=True))

    def _centre_source(self, name: str) -> None:
        editor = self.editor
        if name in editor.weights:
            folded = editor.fold([name], editor.weights[name], centre)
            (reader,) = editor.readers(name)
            inputs = tuple(folded if item == name else item for item in reader.inputs)
            editor.nodes[reader.name] = replace(reader, inputs=inputs)
            return
        node = editor.nodes[name]
        if node.op.name == "linear":
            names = [editor.fold([item], editor.weights[item], centre) for item in node.inputs[1:]]
            editor.replace_node(name, node.op, (node.inputs[0], *names))
        elif transposes := [other for other in editor.readers(node.inputs[0]) if other.name != name]:
            _extend_tied_table(editor, node, transposes)
        else:
            folded = editor.fold([node.inputs[0]], editor.weights[node.inputs[0]], centre)
            editor.replace_node(name, node.op, (folded, *node.inputs[1:]))


def _extend_tied_table(editor: Editor, embedding: Node, transposes: list[Node]) -> None:
    """Replace a table (V, d) of an embedding and a tied head by one with centred rows and their means (V, d + 1).

    The embedding leaves the means out; the head multiplies them by the sum of its input.
    """
    table = embedding.inputs[0]
    rows, width = editor.weights[table]
    extended = editor.fold([table], (rows, width + 1), centre_and_append_mean)
    shapes = ((rows, width + 1), *embedding.op.shapes[1:])
    wide = f"{embedding.name}.extended"
    lookup = Node(wide, replace(embedding.op, shapes=shapes), (extended, *embedding.inputs[1:]), embedding.module)
    editor.insert_before(embedding.name, [lookup])
    dim = len(embedding.op.result_shape) - 1
    slicing = Op("slice", (lookup.op.result_shape,), (True,), (("dim", dim), ("start", 0), ("stop", width)))
    editor.replace_node(embedding.name, slicing, (wide,))
    for transpose in transposes:
        editor.replace_node(transpose.name, replace(transpose.op, shapes=((rows, width + 1),)), (extended,))
        for head in editor.readers(transpose.name):
            _extend_head(editor, head, width)


def _extend_head(editor: Editor, head: Node, width: int) -> None:
    """Append the sum of its input to the input of a tied map."""
    value, shape = head.inputs[0], head.op.shapes[0]
    dim = len(shape) - 1
    total = Node(f"{head.name}.sum", Op("sum", (shape,), (True,), (("dim", dim),)), (value,), head.module)
    parts = (shape, total.op.result_shape)
    joined = Op("concat", parts, (True, True), (("dim", dim),))
    concat = Node(f"{head.name}.concat", joined, (value, total.name), head.module)
    editor.insert_before(head.name, [total, concat])
    shapes = ((*shape[:-1], width + 1), (width + 1, head.op.shapes[1][-1]), *head.op.shapes[2:])
    editor.replace_node(head.name, replace(head.op, shapes=shapes), (concat.name, *head.inputs[1:]))


def mark_causal_products(editor: Editor) -> int:
    """Mark the products before and behind a causal softmax, whose hidden places nobody reads."""
    count = 0
    for node in list(editor.nodes.values()):
        if node.op.name != "softmax" or not node.op.attribute("causal"):
            continue
        scores = _single_reader_source(editor, node.inputs[0])
        if scores and scores.op.name == "matmul":
            editor.nodes[scores.name] = replace(scores, op=scores.op.with_attributes(causal_scores=True))
            count += 1
        readers = editor.readers(node.name)
        if all(reader.op.name == "matmul" and reader.inputs[0] == node.name for reader in readers):
            for reader in readers:
                editor.nodes[reader.name] = replace(reader, op=reader.op.with_attributes(causal_weights=True))
                count += 1
    return count


def _single_reader_source(editor: Editor, name: str) -> Node | None:
    """Return the node of a value that one node reads, behind a factor if there is one."""
    node = editor.nodes.get(name)
    while node and node.op.name == "scale" and len(editor.readers(node.name)) == 1:
        node = editor.nodes.get(node.inputs[0])
    return node if node and len(editor.readers(node.name)) == 1 else None


def mark_weight_factors(editor: Editor) -> int:
    """Mark elementwise products with a weight."""
    marks = dict(_weight_factors(editor))
    for name, index in marks.items():
        editor.nodes[name] = replace(editor.nodes[name], op=editor.nodes[name].op.with_attributes(weight=index))
    return len(marks)


def _weight_factors(editor: Editor) -> Iterator[tuple[str, int]]:
    for node in editor.nodes.values():
        is_weight = [name in editor.weights for name in node.inputs]
        if node.op.name == "multiply" and sum(is_weight) == 1:
            yield node.name, is_weight.index(True)


PASSES: dict[str, tuple[str, Callable[[Editor], int]]] = {
    "weights": ("rearranged weights are stored so, tied ones opened once", rearrange_weights),
    "norms": ("factors and offsets of norms folded into linear maps", fold_norms),
    "scale": ("factors of attention scores folded into linear maps", fold_scales),
    "centring": ("centring of LayerNorms folded into the maps that they read from", fold_centring),
    "causal": ("hidden places of causal attention are not computed", mark_causal_products),
    "factors": ("factors that the server has in the clear", mark_weight_factors),
}
"""Passes by name: a description, and the function, which returns at how many places it changed the graph."""
