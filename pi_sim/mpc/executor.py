"""The executor: it runs a Graph with the kernels that a protocol names, for real parties and for the dry run alike."""

from collections.abc import Callable, Mapping
from typing import Any

from pi_sim.errors import UsageError
from pi_sim.graph.ops import STRUCTURAL, Graph, Node, Op
from pi_sim.mpc.kernels import kernel_for
from pi_sim.mpc.primitives.beaver import OpenedWeight, open_weight_shares
from pi_sim.mpc.runtime import Runtime
from pi_sim.specs import ExecutableProtocol


def apply_op(rt: Runtime, op: Op, operands: list[Any], protocol: ExecutableProtocol) -> Any:
    """Return the result of one operation on shared and public operands, by the protocol's kernel."""
    kernel = kernel_for(op.name, protocol.kernels, protocol.name)
    return kernel.function(rt, *operands, **dict(op.attributes))


def fixed_operand(op: Op, protocol: ExecutableProtocol) -> int | None:
    """Return the index of the operand that is opened under a mask once per session, for all calls; None without one."""
    return kernel_for(op.name, protocol.kernels, protocol.name).fixed_operand


def open_graph_weights(
    rt: Runtime, graph: Graph, weights: Mapping[str, Any], protocol: ExecutableProtocol
) -> dict[str, OpenedWeight]:
    """Open all fixed operands, 1 round in all if there are any; return them by the names under which nodes read them.

    `weights` are this party's shares. Raises `UsageError` where a fixed operand is no weight.
    """
    names = list(dict.fromkeys(name for node in graph.nodes if (name := _fixed_input(node, protocol))))
    nodes = {node.name: node for node in graph.nodes}
    shares = [_resolve_weight(rt, name, nodes, weights, protocol).share for name in names]
    return dict(zip(names, open_weight_shares(rt, shares), strict=True)) if names else {}


def execute(
    rt: Runtime,
    graph: Graph,
    values: dict[str, Any],
    protocol: ExecutableProtocol,
    opened_weights: Mapping[str, OpenedWeight],
    on_node: Callable[[Node], None] = lambda node: None,
) -> Any:
    """Return the last node's result.

    `values` holds this party's shares of weights and tokens, and the public constants, by name; `opened_weights` comes
    from `open_graph_weights`. `on_node` is called after each node. Values are dropped after their last use.
    """
    values = dict(values)
    last = graph.last_uses()
    for index, node in enumerate(graph.nodes):
        fixed_name = _fixed_input(node, protocol)
        operands = [opened_weights[name] if name == fixed_name else values[name] for name in node.inputs]
        values[node.name] = apply_op(rt, node.op, operands, protocol)
        on_node(node)
        for name in set(node.inputs):
            if last[name] == index:
                del values[name]
    return values[graph.nodes[-1].name]


def _fixed_input(node: Node, protocol: ExecutableProtocol) -> str | None:
    index = fixed_operand(node.op, protocol)
    return None if index is None else node.inputs[index]


def _resolve_weight(
    rt: Runtime, name: str, nodes: Mapping[str, Node], weights: Mapping[str, Any], protocol: ExecutableProtocol
) -> Any:
    """Return the share of a weight, or of a weight rearranged by structural operations: local."""
    if name in weights:
        return weights[name]
    node = nodes.get(name)
    if node is None or node.op.name not in STRUCTURAL:
        raise UsageError(
            f"protocol {protocol.name} opens {name} once per session, but it is no weight; choose the kernel beaver."
        )
    operands = [_resolve_weight(rt, operand, nodes, weights, protocol) for operand in node.inputs]
    return apply_op(rt, node.op, operands, protocol)
