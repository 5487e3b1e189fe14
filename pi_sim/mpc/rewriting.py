"""Rewriting of a graph for a protocol, before anything runs: the passes that the protocol names, then widths.

Estimates, exports, dealings and runs share it. A protocol without `rewrites` computes the graph as it was captured.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from pi_sim.graph import folding, widths
from pi_sim.graph.folding import Rewriting, Step
from pi_sim.graph.ops import Graph, Op, mark_reused_weights
from pi_sim.mpc.kernels import kernel_for
from pi_sim.specs import ExecutableProtocol

WIDTHS = "widths"
"""Name of the pass that finds the low bits of every value that its readers need."""


NormHalvings = Mapping[tuple[str, str], int]
"""How often norms halve their rows, by module and operation: alike in all graphs of a model."""


def rewrite_graph(
    graph: Graph, protocol: ExecutableProtocol, halvings: NormHalvings = MappingProxyType({})
) -> Rewriting:
    """Return the graph as the protocol runs it, with the folds of its weights and the steps that led to it.

    `halvings` are those of norms whose rows would not fit their words.
    """
    rewriting = folding.rewrite(graph, [name for name in protocol.rewrites if name != WIDTHS])
    for index, node in enumerate(rewriting.graph.nodes):
        if count := halvings.get((node.module, node.op.name)):
            rewriting.graph.nodes[index] = replace(node, op=node.op.with_attributes(halvings=count))
    mark_reused_weights(rewriting.graph)
    if WIDTHS not in protocol.rewrites:
        return rewriting
    return _infer_widths(rewriting, protocol)


def _infer_widths(rewriting: Rewriting, protocol: ExecutableProtocol) -> Rewriting:
    """Return the rewriting with the `bits` of every operation whose kernel can narrow its result."""

    def operand_bits(op: Op) -> tuple[int, ...]:
        kernel = kernel_for(op.name, protocol.kernels, protocol.name)
        return kernel.operand_bits(op) if kernel.operand_bits else (64,) * len(op.shapes)

    def can_narrow(op: Op) -> bool:
        return kernel_for(op.name, protocol.kernels, protocol.name).can_narrow

    graph = widths.infer_widths(rewriting.graph, operand_bits, can_narrow)
    count = sum(node.op.attribute("bits") is not None for node in graph.nodes)
    step = Step(WIDTHS, "results of which readers need 32 or 48 bits are truncated locally", count, graph)
    return Rewriting(graph, rewriting.folds, [*rewriting.steps, step])
