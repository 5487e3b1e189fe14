"""Widths: the low bits of its ring word that the readers of a value need, 32, 48 or 64."""

from collections.abc import Callable
from dataclasses import replace

from pi_sim.graph.ops import Graph, Node, Op
from pi_sim.graph.vocabulary import VOCABULARY

ALL_BITS = 64


def infer_widths(
    graph: Graph, operand_bits: Callable[[Op], tuple[int, ...]], can_narrow: Callable[[Op], bool]
) -> Graph:
    """Return the graph with the attribute `bits` on operations of whose results fewer than 64 bits are read.

    `operand_bits` returns the bits that an operation needs of its operands, given its own `bits`; `can_narrow` whether
    it makes use of them. A local operation needs of its operands what is read of its result; later steps may read all
    bits of cached rows, unless products alone read them.
    """
    needs: dict[str, int] = {}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        op = node.op
        need = needs.get(node.name, ALL_BITS) if op.name != "cache" or op.attribute("masked") else ALL_BITS
        if VOCABULARY[op.name].kind != "interactive":
            read = (need,) * len(node.inputs)
        else:
            if need < ALL_BITS and can_narrow(op):
                op = op.with_attributes(bits=need)
            read = operand_bits(op)
        for name, bits in zip(node.inputs, read, strict=True):
            needs[name] = max(bits, needs.get(name, 0))
        nodes.append(replace(node, op=op))
    return replace(graph, nodes=nodes[::-1])
