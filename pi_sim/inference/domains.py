"""Domains of kernels against the values that a model computes: measured in plaintext, checked before a private run."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph import reference
from pi_sim.graph.ops import Graph, Node, Op
from pi_sim.graph.ranges import ValueRange
from pi_sim.mpc.kernels import KERNELS, Kernel, kernel_for
from pi_sim.mpc.kernels.narrow_activations import LIFTED
from pi_sim.mpc.kernels.narrow_rows import CENTRED
from pi_sim.mpc.rewriting import NormHalvings
from pi_sim.specs import ExecutableProtocol

Evaluation = tuple[Node, list[Tensor], Tensor]
"""A node with its operands and its value, in plaintext."""
NodeRanges = dict[str, list[ValueRange]]
"""Ranges of quantities by node."""
ROW_MAGNITUDES = (LIFTED.quantity, CENTRED.quantity)
"""Quantities of a norm's rows that halving makes fit their words."""


def measure_ranges(evaluations: Iterable[Evaluation]) -> NodeRanges:
    """Return by node the range of every quantity in which some kernel's domain is stated, over all evaluations.

    Raises `UsageError` for a value that is not finite.
    """
    ranges: dict[str, dict[str, ValueRange]] = {}
    for node, operands, result in evaluations:
        for quantity, statistic in _statistics(node.op, operands, result):
            if not statistic.numel():  # no row is finite
                continue
            low, high = (bound.item() for bound in statistic.aminmax())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise UsageError(
                    f"{node.op} in {node.module} computes with {quantity} that is not finite; the weights are "
                    "damaged, or too large for this model."
                )
            entries = ranges.setdefault(node.name, {})
            entries[quantity] = ValueRange(node.op.name, quantity, low, high).join(entries.get(quantity))
    return {name: list(entries.values()) for name, entries in ranges.items()}


def join_ranges(*graphs: NodeRanges) -> list[ValueRange]:
    """Return the range of every quantity over all nodes of an operation, in one graph or several."""
    joined: dict[tuple[str, str], ValueRange] = {}
    for entry in chain.from_iterable(entries for ranges in graphs for entries in ranges.values()):
        key = entry.op, entry.quantity
        joined[key] = entry.join(joined.get(key))
    return list(joined.values())


def find_halvings(graphs: Sequence[Graph], ranges: Sequence[NodeRanges], protocol: ExecutableProtocol) -> NormHalvings:
    """Return how often norms must halve their rows to fit their words twice over; none for most models.

    Some trained models have a few activations of tens of thousands (arXiv 2402.17762).
    """
    halvings: dict[tuple[str, str], int] = {}
    for graph, entries in zip(graphs, ranges, strict=True):
        for node in graph.nodes:
            largest = _largest_row(entries.get(node.name, [])) if _can_halve(node.op, protocol) else 0.0
            if largest > LIFTED.high:
                key = node.module, node.op.name
                halvings[key] = max(math.ceil(math.log2(2 * largest / LIFTED.high)), halvings.get(key, 0))
    return halvings


def _largest_row(ranges: list[ValueRange]) -> float:
    return max((entry.high for entry in ranges if entry.quantity in ROW_MAGNITUDES), default=0.0)


def _can_halve(op: Op, protocol: ExecutableProtocol) -> bool:
    return "halvings" in kernel_for(op.name, protocol.kernels, protocol.name).parameters


def evaluate_inputs(graph: Graph, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Iterator[Evaluation]:
    """Yield every node with its operands and its value, for each sequence of inputs (N, B, ...) by name."""
    for index in range(len(next(iter(inputs.values())))):
        values = {name: value[index] for name, value in inputs.items()}
        tokens = values.pop("tokens", torch.empty(0))
        yield from reference.evaluate(graph, weights, tokens, values)


def _statistics(op: Op, operands: list[Tensor], result: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the quantities of all domains of an operation's kernels, each once; a norm may halve its rows first.

    LayerNorm halves what is left after it has subtracted the mean, whose own domain is that of the input.
    """
    if halvings := op.attribute("halvings"):
        mean = operands[0].mean(-1, keepdim=True) if op.name == "layernorm" else 0.0
        operands = [mean + (operands[0] - mean) / 2**halvings, *operands[1:]]
    for quantity, (statistic, is_of_result) in _quantities(op.name).items():
        yield quantity, statistic(*([result] if is_of_result else operands))


@cache
def _quantities(op: str) -> dict[str, tuple[Callable[..., Tensor], bool]]:
    """Return the statistic of every quantity of an operation's kernels, and whether it is one of the result."""
    kernels = [kernel for (name, _), kernel in KERNELS.items() if name == op]
    return {
        domain.quantity: (domain.statistic, domain in kernel.result_domains)
        for kernel in kernels
        for domain in (*kernel.domains, *kernel.result_domains)
    }


def warn_of_domains(ranges: list[ValueRange], protocol: ExecutableProtocol, warn: Callable[[str], None]) -> None:
    """Warn of every kernel of a protocol whose operands or result leave its domain.

    Raises `UsageError` where numbers would not fit their words.
    """
    for entry in ranges:
        kernel = kernel_for(entry.op, protocol.kernels, protocol.name)
        for sentence in _kernel_warnings(kernel, entry):
            warn(sentence)


def _kernel_warnings(kernel: Kernel, entry: ValueRange) -> Iterator[str]:
    for domain in (*kernel.domains, *kernel.result_domains):
        if domain.quantity != entry.quantity or (domain.low <= entry.low and entry.high <= domain.high):
            continue
        interval = f"from {domain.low:g} to {domain.high:g}"
        reached = f"here it ranges from {entry.low:.3g} to {entry.high:.3g}"
        if domain.hard:
            raise UsageError(
                f"{kernel.op} by {kernel.name} computes with {domain.quantity} {interval} only; {reached}, which does "
                "not fit its words: choose a kernel with a wider domain, or scale the model."
            )
        yield (
            f"{kernel.op} by {kernel.name} is accurate for {domain.quantity} {interval}; {reached}, so expect inexact "
            "logits."
        )
