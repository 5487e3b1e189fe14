"""Centring: LayerNorm's subtraction of the mean, folded into all that writes the residual stream that it reads."""

from dataclasses import replace

import torch
from torch import Tensor

from pi_sim.graph.editing import Editor, keeps_last_dimension
from pi_sim.graph.ops import Node, Op


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
        return is_sum or node.op.name == "scale" or keeps_last_dimension(node.op)

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
