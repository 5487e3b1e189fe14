"""Folding: a graph rewritten so that it costs less under secure computation, exact in real arithmetic.

The learned factors and offsets of norms, the centring of LayerNorm and the factor of attention scores move into weights
of neighbouring linear maps. A `WeightFold` tells how such a weight follows from the model's own.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.centring import fold_centring
from pi_sim.graph.editing import Editor, WeightFold, keeps_last_dimension
from pi_sim.graph.ops import STRUCTURAL, Graph, Node, Op
from pi_sim.graph.vocabulary import VOCABULARY


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


WEIGHT_OPERATIONS = STRUCTURAL | {"add", "multiply", "neg", "scale", "scale_by", "square"}
"""Operations that are computed at export where all their secret operands are weights."""


def fold_weight_operations(editor: Editor) -> int:
    """Fold operations on weights alone; a transposed table of an embedding becomes a tied map's weight."""
    count = 0
    for node in list(editor.nodes.values()):
        weights = [name for name, secret in zip(node.inputs, node.op.secret, strict=True) if secret]
        if node.op.name not in WEIGHT_OPERATIONS or not weights or not all(name in editor.weights for name in weights):
            continue
        if node.op.name == "transpose" and editor.is_table(weights[0]):
            for reader in editor.readers(node.name):
                if reader.op.name == "linear" and reader.inputs[1] == node.name:
                    editor.nodes[reader.name] = replace(reader, op=reader.op.with_attributes(tied=True))
        else:
            name = editor.fold(weights, node.op.result_shape, _reference(node, editor.source.constants))
            editor.remove(node.name, name)
            count += 1
    return count


def _reference(node: Node, constants: Mapping[str, Tensor]) -> Callable[..., Tensor]:
    """Return the function of an operation's secret operands."""
    op = node.op

    def compute(*weights: Tensor) -> Tensor:
        remaining = iter(weights)
        operands = [next(remaining) if op.secret[index] else constants[name] for index, name in enumerate(node.inputs)]
        return VOCABULARY[op.name].reference(*operands, **op.semantics).contiguous()

    return compute


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
        is_column = shape == columns and node.op.shapes[1 - index] == node.op.result_shape
        if name in editor.weights and is_column and node.op.secret[1 - index]:
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


def split_norms(editor: Editor) -> int:
    """Split the factor and the offset that remain in a norm into a product and a sum: the server has both."""
    count = 0
    for node in list(editor.nodes.values()):
        weights = node.inputs[1:]
        if node.op.name in ("layernorm", "rmsnorm") and weights and all(name in editor.weights for name in weights):
            _split_norm(editor, node)
            count += 1
    return count


def _split_norm(editor: Editor, node: Node) -> None:
    """Insert the norm alone before a node, which becomes its product with gamma, or the sum of that and beta."""
    shape, columns = node.op.shapes[0], node.op.shapes[1]
    plain = Node(f"{node.name}.plain", replace(node.op, shapes=(shape,), secret=(True,)), node.inputs[:1], node.module)
    product = Op("multiply", (shape, columns), (True, True))
    if len(node.inputs) == 2:
        editor.insert_before(node.name, [plain])
        editor.replace_node(node.name, product, (plain.name, node.inputs[1]))
        return
    scaled = Node(f"{node.name}.scaled", product, (plain.name, node.inputs[1]), node.module)
    editor.insert_before(node.name, [plain, scaled])
    editor.replace_node(node.name, Op("add", (shape, columns), (True, True)), (scaled.name, node.inputs[2]))


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
    regions = [_ScaledColumns(editor, *pair) for pair in starts]
    closed = [columns for columns in regions if columns.visit(columns.start) and columns.is_closed()]
    if not closed:
        return False
    # Half of it in either factor of a product costs the fixed-point weights fewer bits than all of it in one.
    factor = float(node.op.attribute("factor"))
    root = math.copysign(math.sqrt(abs(factor)), factor) if len(closed) > 1 else factor
    closed[0].fold(root)
    if len(closed) > 1:
        closed[1].fold(abs(root))
    editor.remove(node.name, node.inputs[0])
    return True


class _ScaledColumns:
    """The columns of linear maps from which a value comes by homogeneous operations alone, read by nothing else."""

    def __init__(self, editor: Editor, start: str, end: str) -> None:
        """`end` is the node that reads the value `start`."""
        self.editor, self.start, self.end = editor, start, end
        self.region: set[str] = set()
        self.columns: dict[str, tuple[int, int]] = {}

    def visit(self, name: str) -> bool:
        """Walk back to the maps of a value; return False where it comes from anything else."""
        if name in self.region:
            return True
        node = self.editor.nodes.get(name)
        if node is None:
            return False
        if node.op.name == "linear":
            return self._claim(node, (0, node.op.result_shape[-1]))
        if node.op.name not in HOMOGENEOUS:
            return False
        self.region.add(name)
        if fused := self._sliced_map(node):
            return self._claim(fused, (node.op.attribute("start"), node.op.attribute("stop")))
        operands = [name for name, secret in zip(node.inputs, node.op.secret, strict=True) if secret]
        return all(self.visit(operand) for operand in operands) and (node.op.name != "add" or all(node.op.secret))

    def _claim(self, node: Node, columns: tuple[int, int]) -> bool:
        """Return whether these columns of a map, and no others, can be scaled."""
        claimed = self.columns.setdefault(node.name, columns)
        return claimed == columns and self.editor.can_fold(node) and not node.op.attribute("tied")

    def _sliced_map(self, node: Node) -> Node | None:
        """Return the linear map of which a node takes some columns, such as the queries of a fused map."""
        if _last_columns(node) is None:
            return None
        source = self.editor.nodes.get(node.inputs[0])
        while source and source.op.name == "view" and keeps_last_dimension(source.op):
            source = self.editor.nodes.get(source.inputs[0])
        return source if source and source.op.name == "linear" else None

    def is_closed(self) -> bool:
        """Return whether nothing else reads what is scaled, and the end reads it once."""
        inputs = self.editor.nodes[self.end].inputs
        if [name for name in inputs if name in self.region or name in self.columns] != [self.start]:
            return False
        inside = {*self.region, self.end}
        if any(reader.name not in inside for name in self.region for reader in self.editor.readers(name)):
            return False
        return all(self._is_read_inside(name, columns) for name, columns in self.columns.items())

    def _is_read_inside(self, name: str, columns: tuple[int, int]) -> bool:
        """Return whether all readers of a map's scaled columns are scaled too."""
        if columns == (0, self.editor.nodes[name].op.result_shape[-1]):
            return all(reader.name in {*self.region, self.end} for reader in self.editor.readers(name))
        return all(
            reader.name in self.region if _last_columns(reader) == columns else _is_disjoint(reader, columns)
            for reader in self._readers_behind_views(name)
        )

    def _readers_behind_views(self, name: str) -> Iterator[Node]:
        for reader in self.editor.readers(name):
            if reader.op.name == "view" and keeps_last_dimension(reader.op):
                yield from self._readers_behind_views(reader.name)
            else:
                yield reader

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


def _last_columns(node: Node) -> tuple[int, int] | None:
    """Return the columns of its operand that a slice of the last dimension takes, None for any other node."""
    if node.op.name != "slice" or node.op.attribute("dim") != len(node.op.shapes[0]) - 1:
        return None
    return node.op.attribute("start"), node.op.attribute("stop")


def _is_disjoint(node: Node, columns: tuple[int, int]) -> bool:
    """Return whether a node takes other columns alone."""
    taken = _last_columns(node)
    return taken is not None and (taken[1] <= columns[0] or columns[1] <= taken[0])


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


def mark_cached_factors(editor: Editor) -> int:
    """Mark cached rows that are the second factors of products alone, and how many of their elements a product opens.

    Rows that anything else reads stay shared, and so do rows that a structural operation joins with such ones.
    """
    regions = {name: region for name in editor.source.cache if (region := _cached_region(editor, name)) is not None}
    while joined := {name for name, region in regions.items() if not _is_closed_region(editor, region, regions)}:
        regions = {name: region for name, region in regions.items() if name not in joined}
    fresh: dict[str, int] = {}
    for name, region in regions.items():
        node = editor.nodes[editor.source.cache[name]]
        editor.nodes[node.name] = replace(node, op=node.op.with_attributes(masked=True))
        product = next(item.name for item in editor.nodes.values() if _reads_factor(item, region))
        fresh[product] = fresh.get(product, 0) + math.prod(node.op.result_shape)
    for node in list(editor.nodes.values()):
        if any(_reads_factor(node, region) for region in regions.values()):
            editor.nodes[node.name] = replace(node, op=node.op.with_attributes(fresh=fresh.get(node.name, 0)))
    return len(regions)


def _reads_factor(node: Node, region: set[str]) -> bool:
    return node.op.name == "matmul" and node.inputs[1] in region


def _cached_region(editor: Editor, name: str) -> set[str] | None:
    """Return cached rows, new and old, and what structural operations make of them; None if others than products read.

    `name` is the input of old rows.
    """
    region: set[str] = set()
    pending = [name, editor.source.cache[name]]
    while pending:
        value = pending.pop()
        region.add(value)
        for reader in editor.readers(value):
            if reader.op.name in STRUCTURAL:
                pending.append(reader.name)
            elif reader.op.name != "matmul" or reader.inputs[0] == value:
                return None
    return region if any(_reads_factor(node, region) for node in editor.nodes.values()) else None


def _is_closed_region(editor: Editor, region: set[str], regions: Mapping[str, set[str]]) -> bool:
    """Return whether structural operations join its values with values of other regions alone."""
    values = set().union(*regions.values())
    nodes = [editor.nodes[name] for name in region if name in editor.nodes and editor.nodes[name].op.name != "cache"]
    return all(operand in values for node in nodes for operand in node.inputs)


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
    "weights": (
        "operations on weights alone computed at export, tied ones opened once",
        fold_weight_operations,
    ),
    "norms": ("factors and offsets of norms folded into linear maps", fold_norms),
    "scale": ("factors of attention scores folded into linear maps", fold_scales),
    "centring": ("centring of LayerNorms folded into the maps that they read from", fold_centring),
    "affine": ("factors and offsets that remain in norms become products and sums", split_norms),
    "causal": ("hidden places of causal attention are not computed", mark_causal_products),
    "cache": ("cached keys and values opened once, not at every step", mark_cached_factors),
    "factors": ("factors that the server has in the clear", mark_weight_factors),
}
"""Passes by name: a description, and the function, which returns at how many places it changed the graph."""
