"""Runs a Graph with the kernels that a protocol names: the same code for two real parties and for a phantom."""

from collections.abc import Callable
from typing import Any

from pi_sim.graph.ops import Graph, Node, Op
from pi_sim.mpc.kernels import choose
from pi_sim.specs import ProtocolCard


def apply(op: Op, operands: list[Any], protocol: ProtocolCard) -> Any:
    """The result of one operation on shared and public operands."""
    kernel = choose(op.name, protocol.kernels, protocol.name)
    return kernel.function(*operands, **dict(op.attributes))


def execute(
    graph: Graph,
    values: dict[str, Any],
    protocol: ProtocolCard,
    after: Callable[[Node], None] = lambda node: None,
) -> Any:
    """The last node's result from shared weights and tokens in `values`, which also holds the public constants.

    `after` is called when a node is done. A value is dropped after its last use, so that memory stays bounded.
    """
    values = dict(values)
    last = graph.last_uses()
    for index, node in enumerate(graph.nodes):
        values[node.name] = apply(node.op, [values[name] for name in node.inputs], protocol)
        after(node)
        for name in set(node.inputs):
            if last[name] == index:
                del values[name]
    return values[graph.nodes[-1].name]
