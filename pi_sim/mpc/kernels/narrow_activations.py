"""Elementwise functions of values of which 32 bits are right, by one opening of 4 bytes.

The functions by pieces are those of `pi_sim.mpc.kernels.activations`. Their results are exact in 64 bits, or, if fewer
are read, computed in 32. See `pi_sim.mpc.primitives.narrow`. Sources: the masked series is SHAFT's (NDSS 2025); the
rest is ours.
"""

from collections.abc import Callable
from fractions import Fraction

from pi_sim.graph.ops import Op
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.activations import ERF, GELU, SILU, TANH, clamp_pieces
from pi_sim.mpc.kernels.costs import Dimensions, KernelCost, result_bits
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import Domain, kernel, magnitude
from pi_sim.mpc.primitives import narrow
from pi_sim.mpc.primitives.comparison import NARROW, and_cost
from pi_sim.mpc.primitives.piecewise import RELU, Piecewise
from pi_sim.mpc.runtime import Runtime

LIFTED = Domain("|input|", magnitude, 0, 2.0**14, hard=True)
"""Inputs that are lifted from 32 to 64 bits."""
COMPARED = Domain("|input|", magnitude, 0, 2.0**15 - 16, hard=True)
"""Inputs that are compared in 32 bits with thresholds of up to 16."""
NARROW_OPERAND: Callable[[Op], tuple[int, ...]] = lambda op: (32,)  # noqa: E731


def evaluation_cost(function: Piecewise, bits: int) -> KernelCost:
    """Return the cost of `narrow.evaluate` of one element."""
    thresholds, pieces = len(function.thresholds), len(function.nonzero_intervals)
    sent, and_dealt = and_cost(NARROW)
    opened = 4 + sent * thresholds + Fraction(pieces, 8) + (4 if function.series else 0)
    masks = narrow.SelectionMasks(1, function, narrow.result_word(bits))
    dealt = sum(part.bytes for part in masks.correlation().dependent_parts)
    return KernelCost(rounds=4, bytes=opened, offline=dealt + and_dealt * thresholds)


def _cost(d: Dimensions, function: Piecewise) -> KernelCost:
    return evaluation_cost(function, result_bits(d.op)).parallel(d.elements)


@kernel("relu", "narrow", LIFTED, operand_bits=NARROW_OPERAND, can_narrow=True, cost=lambda d: _cost(d, RELU))
def relu(rt: Runtime, x: Shared, *, bits: int = 64) -> Shared:
    """Return max(x, 0): exact. 4 rounds."""
    return map_share(x, lambda share: narrow.evaluate(rt, share, RELU, bits))


@kernel(
    "clamp",
    "narrow",
    LIFTED,
    operand_bits=NARROW_OPERAND,
    can_narrow=True,
    cost=lambda d: _cost(d, clamp_pieces(d.op.attribute("low"), d.op.attribute("high"))),
)
def clamp(rt: Runtime, x: Shared, *, low: float, high: float, bits: int = 64) -> Shared:
    """Return the clamped x for ends of up to 2^14: exact. 4 rounds."""
    return map_share(x, lambda share: narrow.evaluate(rt, share, clamp_pieces(low, high), bits))


@kernel("gelu", "narrow", LIFTED, operand_bits=NARROW_OPERAND, can_narrow=True, cost=lambda d: _cost(d, GELU))
def gelu(rt: Runtime, x: Shared, *, approximate: str, bits: int = 64) -> Shared:
    """Return 0, x/2 plus a cosine series, or x: max error 0.0003 everywhere. 4 rounds."""
    return map_share(x, lambda share: narrow.evaluate(rt, share, GELU, bits))


@kernel("silu", "narrow", LIFTED, operand_bits=NARROW_OPERAND, can_narrow=True, cost=lambda d: _cost(d, SILU))
def silu(rt: Runtime, x: Shared, *, bits: int = 64) -> Shared:
    """Return 0, x/2 plus a cosine series, or x: max error 0.0012 everywhere. 4 rounds."""
    return map_share(x, lambda share: narrow.evaluate(rt, share, SILU, bits))


@kernel("tanh", "narrow", COMPARED, operand_bits=NARROW_OPERAND, can_narrow=True, cost=lambda d: _cost(d, TANH))
def tanh(rt: Runtime, x: Shared, *, bits: int = 64) -> Shared:
    """Return -1, a sine series, or 1: max error 0.0004 everywhere. 4 rounds."""
    return map_share(x, lambda share: narrow.evaluate(rt, share, TANH, bits))


@kernel("erf", "narrow", COMPARED, operand_bits=NARROW_OPERAND, can_narrow=True, cost=lambda d: _cost(d, ERF))
def erf(rt: Runtime, x: Shared, *, bits: int = 64) -> Shared:
    """Return -1, a sine series, or 1: max error 0.0002 everywhere. 4 rounds."""
    return map_share(x, lambda share: narrow.evaluate(rt, share, ERF, bits))
