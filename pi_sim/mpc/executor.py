"""Runs a Graph with the kernels that a protocol names: the same code for two real parties and for a phantom."""

from collections.abc import Callable, Mapping
from typing import Any

from pi_sim.errors import UsageError
from pi_sim.graph.ops import STRUCTURAL, Graph, Node, Op
from pi_sim.mpc.kernels import kernel_for
from pi_sim.mpc.primitives.beaver import OpenedWeight, open_weight_shares
from pi_sim.mpc.runtime import Runtime
from pi_sim.specs import ExecutableProtocol


def apply_op(rt: Runtime, op: Op, operands: list[Any], protocol: ExecutableProtocol) -> Any:
    """The result of one operation on shared and public operands."""
    kernel = kernel_for(op.name, protocol.kernels, protocol.name)
    return kernel.function(rt, *operands, **dict(op.attributes))


def fixed_operand(op: Op, protocol: ExecutableProtocol) -> int | None:
    """The operand that stays put in a session: it is opened under a mask once, for all calls."""
    return kernel_for(op.name, protocol.kernels, protocol.name).fixed_operand


def open_graph_weights(
    rt: Runtime, graph: Graph, weights: Mapping[str, Any], protocol: ExecutableProtocol
) -> dict[str, OpenedWeight]:
    """Every weight that stays put, by the name its operations read it under: 1 round in all, if there are any."""
    names = list(dict.fromkeys(name for node in graph.nodes if (name := _fixed_input(node, protocol))))
    nodes = {node.name: node for node in graph.nodes}
    shares = [_resolve_weight(rt, name, nodes, weights, protocol).share for name in names]
    return dict(zip(names, open_weight_shares(rt, shares), strict=True)) if names else {}


def execute(
    rt: Runtime,
    graph: Graph,
    values: dict[str, Any],
    protocol: ExecutableProtocol,
    opened: Mapping[str, OpenedWeight],
    after: Callable[[Node], None] = lambda node: None,
) -> Any:
    """The last node's result from shared weights and tokens in `values`, which also holds the public constants.

    `opened` is what `open_weights` found. `after` is called when a node is done. A value is dropped after its last
    use, so that memory stays bounded.
    """
    values = dict(values)
    last = graph.last_uses()
    for index, node in enumerate(graph.nodes):
        settled = _fixed_input(node, protocol)
        operands = [opened[name] if name == settled else values[name] for name in node.inputs]
        values[node.name] = apply_op(rt, node.op, operands, protocol)
        after(node)
        for name in set(node.inputs):
            if last[name] == index:
                del values[name]
    return values[graph.nodes[-1].name]


def _fixed_input(node: Node, protocol: ExecutableProtocol) -> str | None:
    place = fixed_operand(node.op, protocol)
    return None if place is None else node.inputs[place]


def _resolve_weight(
    rt: Runtime, name: str, nodes: Mapping[str, Node], weights: Mapping[str, Any], protocol: ExecutableProtocol
) -> Any:
    """A weight, or a rearranged one."""
    if name in weights:
        return weights[name]
    node = nodes.get(name)
    if node is None or node.op.name not in STRUCTURAL:
        raise UsageError(f"protocol {protocol.name} keeps {name} in a session, but it is no weight; choose beaver.")
    operands = [_resolve_weight(rt, operand, nodes, weights, protocol) for operand in node.inputs]
    return apply_op(rt, node.op, operands, protocol)
