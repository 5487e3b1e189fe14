"""Softmax and norms of values of which 32 bits are right: each is opened once, in 4 bytes.

See `pi_sim.mpc.primitives.normalisation` for the numbers per row. Sources: the masked series is SHAFT's (NDSS 2025);
the rest is ours.
"""

import math
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from pi_sim.graph.ops import Op
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import TRUNCATION, Dimensions, KernelCost, result_bits
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.narrow_activations import evaluation_cost
from pi_sim.mpc.kernels.norms import absolute_mean, centred_sum_of_squares, sum_of_squares
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.kernels.softmax import EXP, HIDDEN_SCORE_SHARE, exponents, row_maximum
from pi_sim.mpc.openings import NARROW_BITS
from pi_sim.mpc.primitives import comparison, narrow
from pi_sim.mpc.primitives.normalisation import (
    Normalisation,
    RowWords,
    inverse_root_form,
    lift_low_bits,
    normalise,
    reciprocal_form,
)
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.rows import (
    INVERSE_ROOT_SERIES,
    MAX_POWER_OF_4,
    MIN_POWER_OF_4,
    RECIPROCAL_SERIES,
    CausalRows,
    apply_affine,
    subtract_mean,
)
from pi_sim.mpc.primitives.truncation import shift_locally, truncate
from pi_sim.mpc.runtime import Runtime

RECIPROCAL = replace(RECIPROCAL_SERIES, fraction_bits=32, basis_bits=16)
INVERSE_ROOT = replace(INVERSE_ROOT_SERIES, fraction_bits=36, basis_bits=18)
"""The series in 64-bit words, which leave more bits to their coefficients and to the basis."""
ROOT_FRACTION_BITS = 32
"""Fraction bits of 1 / sqrt(v) in its product with a row."""
LOWEST_WEIGHT = -(2**12)
"""Lower end of the interval in which a weight of attention is lifted: approximations may be below zero."""


def _reciprocal_of_sums(length: int) -> Normalisation:
    """Return the reciprocal of row sums, from 1 to `length`."""
    return reciprocal_form(RECIPROCAL, range(length.bit_length()), FRACTION_BITS, comparison.NARROW)


def _normalisation_cost(form: Normalisation) -> KernelCost:
    """Return the cost of `normalise` of one number."""
    count = form.intervals
    sent, and_dealt = comparison.and_cost(form.word)
    opened = 8 + sent * (count - 1) + Fraction(count, 8) + 4
    dealt = sum(part.bytes for part in form.correlation(1).dependent_parts)
    return KernelCost(5, opened, dealt + and_dealt * (count - 1))


def _tournament_cost(d: Dimensions) -> KernelCost:
    """A ReLU per comparison of the tournament, exp per visible score, a reciprocal per row, and a lifted product."""
    scores, (m, n) = d.elements, d.op.shapes[0][-2:]
    if d.op.attribute("causal"):
        scores -= d.rows * (m - 1) // 2
    levels, comparisons = (n - 1).bit_length(), scores - d.rows
    maximum = KernelCost(3 * levels, comparisons * Fraction(25, 4), Fraction(109, 2) * comparisons)
    exponential = evaluation_cost(EXP, bits=64)
    product = KernelCost(1, 4, 24) + KernelCost(1, 4, 16)
    row = _normalisation_cost(_reciprocal_of_sums(n)) + KernelCost(0, 8, 0)
    return maximum + (exponential + product).parallel(scores) + row.parallel(d.rows)


@kernel(
    "softmax",
    "narrow-tournament",
    Domain("score minus row maximum", exponents, -16_000, 0, hard=True),
    Domain("row maximum", row_maximum, -16_000, 16_000, hard=True),
    operand_bits=lambda op: (32, *(64,) * (len(op.shapes) - 1)),
    cost=_tournament_cost,
)
def softmax(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Return softmax by masked comparisons; with a causal mask only the visible scores are computed.

    Scores that another mask hides are made low, and the results zero.

    1. Row maxima by a tournament of masked comparisons: 3 rounds per halving of the longest row.
    2. exp(x - maximum): zero below -11, else a Fourier series (4 rounds).
    3. Reciprocal of each row's sum, see `normalise` (5 rounds); in its first round the exponentials are opened.
    4. Multiply by it: one number is opened per row (1 round). Shift locally, and lift to 64 bits (1 round).

    Max error 0.0007 for rows of up to 20 positions of any kind, and 0.00003 per position of longer ones; flat rows of
    up to 2,048 positions sum to 1 within 0.001.
    """
    return map_share(scores, lambda share: _softmax_of_share(rt, share, allowed, causal))


def _softmax_of_share(rt: Runtime, share: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
    """Return a share of the softmax of a share of the scores (..., m, n)."""
    m, n = share.shape[-2:]
    rows = CausalRows(torch.arange(n - m + 1, n + 1) if causal else torch.full((m,), n), n)
    if allowed is not None and not causal:
        share = share * allowed.long() + (HIDDEN_SCORE_SHARE * ~allowed if rt.rank == 0 else 0)
    visible = rows.gather(share.to(comparison.NARROW))
    exponent = visible - rows.broadcast(rows.row_maxima(rt, visible, narrow.rectify))
    powers = narrow.evaluate(rt, exponent, EXP, bits=64)
    sums = rows.row_sums(powers)
    form = _reciprocal_of_sums(n)
    words = RowWords(rt, powers, sums.numel(), lambda values: rows.broadcast(values.view(sums.shape)))
    inverse, (words.m,) = normalise(rt, sums.reshape(-1), form, [words.opening])
    surplus = RECIPROCAL.fraction_bits + form.intervals - 1
    product = shift_locally(words.multiply(inverse), surplus)
    weights = rows.scatter(lift_low_bits(rt, product, NARROW_BITS - form.intervals + 1, LOWEST_WEIGHT))
    return weights if allowed is None or causal else weights * allowed.long()


def _inverse_root(width: int) -> tuple[Normalisation, int]:
    """Return sqrt(width) / sqrt(v) over a power of two, and that power, for v of 32 fraction bits."""
    root, doublings = math.frexp(math.sqrt(width))
    powers = range(MIN_POWER_OF_4, MAX_POWER_OF_4 + 1)
    return inverse_root_form(INVERSE_ROOT.scale(root), powers, 2 * FRACTION_BITS), doublings


def _norm_cost(d: Dimensions) -> KernelCost:
    """Open every element, a root per row, its product, and a lift; multiply by gamma, if there is one, and truncate."""
    form, _ = _inverse_root(d.cols)
    row = _normalisation_cost(form) + TRUNCATION + KernelCost(1, 8, 8)
    cost = row.parallel(d.rows) + KernelCost(1, 4, 28).parallel(d.elements)
    if result_bits(d.op) > NARROW_BITS:
        cost += KernelCost(1, 4, 16).parallel(d.elements)
    if d.operand(1):
        cost += KernelCost(1, 8 * (d.elements + d.operand(1)), 8 * d.elements) + TRUNCATION.parallel(d.elements)
    return cost


def _divide_by_rms(rt: Runtime, x: Tensor, eps: float, bits: int) -> Tensor:
    """Return x / sqrt(mean of x^2 + eps) over the last dimension of values that are right in 32 bits.

    1. Open x (1 round, 4 bytes): the sum v of squares of each row is local.
    2. 1 / sqrt(v + d eps) (5 rounds), truncated to 32 fraction bits (1 round, both per row).
    3. Multiply by it: one number is opened per row (1 round). Shift locally, and lift to 64 bits (1 round).

    9 rounds, 8 without the lift.
    """
    rows = x.reshape(-1, x.shape[-1])
    words = RowWords(rt, rows, len(rows), lambda values: values.unsqueeze(-1), squares=True)
    (words.m,) = rt.open(words.opening)
    v = words.square_sums() + (round(x.shape[-1] * eps * 2 ** (2 * FRACTION_BITS)) if rt.rank == 0 else 0)
    form, doublings = _inverse_root(x.shape[-1])
    root, _ = normalise(rt, v, form)
    surplus = form.series.fraction_bits + MAX_POWER_OF_4 - ROOT_FRACTION_BITS
    product = words.multiply(truncate(rt, root, surplus))
    result = shift_locally(product, ROOT_FRACTION_BITS - doublings)
    if bits > NARROW_BITS:
        result = lift_low_bits(rt, result, NARROW_BITS, -(2**30))
    return result.view(x.shape)


@kernel(
    "layernorm",
    "one-opening",
    Domain("sum of squares of a centred row", centred_sum_of_squares, 0.05, 1e9),
    Domain("|mean|", absolute_mean, 0, 16_000),
    operand_bits=lambda op: (32 if op.attribute("centred") else 64, *(64,) * (len(op.shapes) - 1)),
    can_narrow=True,
    cost=lambda d: _norm_cost(d) + (KernelCost() if d.op.attribute("centred") else TRUNCATION.parallel(d.rows)),
)
def layernorm(
    rt: Runtime,
    x: Shared,
    gamma: Shared = None,
    beta: Shared = None,
    *,
    eps: float,
    centred: bool = False,
    bits: int = 64,
) -> Shared:
    """Return LayerNorm: a row's sum of squares is brought to [1, 4) first, and every element is opened once.

    1. Subtract the mean, truncated wrap-free (1 round), unless the rows are centred.
    2. Normalise, see `_divide_by_rms` (9 rounds).
    3. Multiply by gamma and truncate wrap-free (2 rounds); add beta.
    """

    def apply(share: Tensor) -> Tensor:
        rows = share if centred else subtract_mean(rt, share)
        return apply_affine(rt, _divide_by_rms(rt, rows, eps, 64 if gamma is not None else bits), gamma, beta)

    return map_share(x, apply)


def _narrow_rows(op: Op) -> tuple[int, ...]:
    return 32, *(64,) * (len(op.shapes) - 1)


@kernel(
    "rmsnorm",
    "one-opening",
    Domain("sum of squares of a row", sum_of_squares, 0.05, 1e9),
    operand_bits=_narrow_rows,
    can_narrow=True,
    cost=_norm_cost,
)
def rmsnorm(rt: Runtime, x: Shared, gamma: Shared = None, *, eps: float, bits: int = 64) -> Shared:
    """Return RMSNorm: the steps of `layernorm` without centring."""

    def apply(share: Tensor) -> Tensor:
        return apply_affine(rt, _divide_by_rms(rt, share, eps, 64 if gamma is not None else bits), gamma)

    return map_share(x, apply)
