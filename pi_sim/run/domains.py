"""Domains of kernels against the values that a model computes: measured in plaintext, checked before a private run."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph import reference
from pi_sim.graph.ops import Graph, Op
from pi_sim.graph.ranges import ValueRange
from pi_sim.mpc.kernels import KERNELS, Kernel, kernel_for
from pi_sim.specs import ExecutableProtocol


def measure_ranges(graph: Graph, weights: Mapping[str, Tensor], tokens: Tensor) -> list[ValueRange]:
    """Return the range of every quantity in which some kernel's domain is stated, over token ids (N, T).

    Raises `UsageError` for a value that is not finite.
    """
    ranges: dict[tuple[str, str], ValueRange] = {}
    for sequence in tokens:
        for node, operands, result in reference.evaluate(graph, weights, sequence[None]):
            for quantity, statistic in _statistics(node.op, operands, result):
                if not statistic.numel():  # no row is finite
                    continue
                low, high = (bound.item() for bound in statistic.aminmax())
                if not (math.isfinite(low) and math.isfinite(high)):
                    raise UsageError(
                        f"{node.op} in {node.module} computes with {quantity} that is not finite; the weights are "
                        "damaged, or too large for this model."
                    )
                key = node.op.name, quantity
                ranges[key] = ValueRange(*key, low, high).join(ranges.get(key))
    return list(ranges.values())


def _statistics(op: Op, operands: list[Tensor], result: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the quantities of the domains of all kernels of an operation, each once."""
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
