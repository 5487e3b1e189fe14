"""Runs a Graph with the kernels that a protocol names: the same code for two real parties and for a phantom."""

from collections.abc import Callable, Mapping
from typing import Any

from pi_sim.errors import UsageError
from pi_sim.graph.ops import STRUCTURAL, Graph, Node, Op
from pi_sim.mpc.kernels import choose
from pi_sim.mpc.primitives.stationary import Weight, settle
from pi_sim.specs import ProtocolCard


def apply(op: Op, operands: list[Any], protocol: ProtocolCard) -> Any:
    """The result of one operation on shared and public operands."""
    kernel = choose(op.name, protocol.kernels, protocol.name)
    return kernel.function(*operands, **dict(op.attributes))


def stationary(op: Op, protocol: ProtocolCard) -> int | None:
    """The operand that stays put in a session: it is opened under a mask once, for all calls."""
    return choose(op.name, protocol.kernels, protocol.name).fixed_operand


def open_weights(graph: Graph, weights: Mapping[str, Any], protocol: ProtocolCard) -> dict[str, Weight]:
    """Every weight that stays put, by the name its operations read it under: 1 round in all, if there are any."""
    names = list(dict.fromkeys(name for node in graph.nodes if (name := _stationary_input(node, protocol))))
    nodes = {node.name: node for node in graph.nodes}
    shares = [_weight(name, nodes, weights, protocol).share for name in names]
    return dict(zip(names, settle(shares), strict=True)) if names else {}


def execute(
    graph: Graph,
    values: dict[str, Any],
    protocol: ProtocolCard,
    opened: Mapping[str, Weight],
    after: Callable[[Node], None] = lambda node: None,
) -> Any:
    """The last node's result from shared weights and tokens in `values`, which also holds the public constants.

    `opened` is what `open_weights` found. `after` is called when a node is done. A value is dropped after its last
    use, so that memory stays bounded.
    """
    values = dict(values)
    last = graph.last_uses()
    for index, node in enumerate(graph.nodes):
        settled = _stationary_input(node, protocol)
        operands = [opened[name] if name == settled else values[name] for name in node.inputs]
        values[node.name] = apply(node.op, operands, protocol)
        after(node)
        for name in set(node.inputs):
            if last[name] == index:
                del values[name]
    return values[graph.nodes[-1].name]


def _stationary_input(node: Node, protocol: ProtocolCard) -> str | None:
    place = stationary(node.op, protocol)
    return None if place is None else node.inputs[place]


def _weight(name: str, nodes: Mapping[str, Node], weights: Mapping[str, Any], protocol: ProtocolCard) -> Any:
    """A weight, or a rearranged one."""
    if name in weights:
        return weights[name]
    node = nodes.get(name)
    if node is None or node.op.name not in STRUCTURAL:
        raise UsageError(f"protocol {protocol.name} keeps {name} in a session, but it is no weight; choose beaver.")
    return apply(node.op, [_weight(each, nodes, weights, protocol) for each in node.inputs], protocol)
