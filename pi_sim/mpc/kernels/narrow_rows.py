"""Softmax and norms of values of which 32 bits are right: each is opened once, in 4 bytes.

See `pi_sim.mpc.primitives.normalisation` for the numbers per row. Sources: the masked series is SHAFT's (NDSS 2025);
the rest is ours.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.ops import Op
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import TRUNCATION, Dimensions, KernelCost, result_bits
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.narrow_activations import LIFTED, evaluation_cost
from pi_sim.mpc.kernels.norms import CENTRED_SQUARES, SQUARES, absolute_mean
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.kernels.softmax import EXP, exponents, row_maximum, visible_scores
from pi_sim.mpc.openings import NARROW_BITS
from pi_sim.mpc.primitives import comparison, maxima, narrow
from pi_sim.mpc.primitives.causal import visible_count
from pi_sim.mpc.primitives.normalisation import (
    Normalisation,
    RowWords,
    inverse_root_form,
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
    Largest,
    apply_affine,
    larger_by,
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
LONGEST_ROW = 2**14
"""Longest row: the bits that remain of a longer one's weights do not hold a weight of 1."""


def _reciprocal_of_sums(length: int) -> Normalisation:
    """Return the reciprocal of row sums, from 1 to `length`; raises `UsageError` for rows that are too long."""
    if length > LONGEST_ROW:
        raise UsageError(f"softmax by narrow words computes rows of up to {LONGEST_ROW:,} scores, not {length:,}.")
    return reciprocal_form(RECIPROCAL, range(max(2, length.bit_length())), FRACTION_BITS, comparison.NARROW)


def _weight_bits(length: int) -> int:
    """Return the low bits in which a weight of attention is right before it is lifted."""
    return NARROW_BITS + 1 - _reciprocal_of_sums(length).intervals


def _narrow_rows(op: Op) -> tuple[int, ...]:
    """Return the bits of rows, and of further operands."""
    return 32, *(64,) * (len(op.shapes) - 1)


def _lift_cost(bits: int) -> KernelCost:
    """Return the cost of `narrow.lift` of one element."""
    return KernelCost(1, 4, sum(part.bytes for part in narrow.lift_mask(1, bits).dependent_parts))


def _normalisation_cost(form: Normalisation) -> KernelCost:
    """Return the cost of `normalise` of one number."""
    count = form.intervals
    sent, and_dealt = comparison.and_cost(form.word)
    opened = 8 + sent * (count - 1) + Fraction(count, 8) + 4
    dealt = sum(part.bytes for part in form.correlation(1).dependent_parts)
    return KernelCost(5, opened, dealt + and_dealt * (count - 1))


@dataclass(frozen=True)
class Tournament:
    """A way to find row maxima: the largest of groups of up to `size` elements, again and again."""

    largest: Largest
    size: int
    group_cost: KernelCost


def _largest_cost(size: int) -> KernelCost:
    """Return the cost of `maxima.largest` of one group."""
    pairs, (sent, and_dealt) = math.comb(size, 2), comparison.and_cost(comparison.NARROW)
    dealt = sum(part.bytes for part in maxima.largest_masks(size, 1).dependent_parts)
    return KernelCost(4, 4 * size + (sent + Fraction(1, 8)) * pairs, dealt + and_dealt * pairs)


PAIRS = Tournament(larger_by(maxima.rectify), 2, KernelCost(3, Fraction(25, 4), Fraction(109, 2)))
FOURS = Tournament(maxima.largest, 4, _largest_cost(4))


def _row_maxima_cost(d: Dimensions, tournament: Tournament) -> KernelCost:
    """Return the cost of the row maxima of scores (..., m, n)."""
    m, n = d.op.shapes[0][-2:]
    counts = CausalRows.of_scores(m, n, bool(d.op.attribute("causal"))).group_counts(tournament.size)
    groups, group = d.elements // (m * n) * sum(counts), tournament.group_cost
    return KernelCost(group.rounds * len(counts), group.bytes * groups, group.offline * groups)


def _softmax_cost(d: Dimensions, tournament: Tournament) -> KernelCost:
    """Row maxima, exp per visible score, a reciprocal per row, and a lifted product."""
    scores, (m, n) = d.elements, d.op.shapes[0][-2:]
    if d.op.attribute("causal"):
        scores = d.elements // (m * n) * visible_count(m, n)
    exponential = evaluation_cost(EXP, bits=64)
    bits = _weight_bits(n)
    product = KernelCost(1, 4, 24) + _lift_cost(bits)
    row = _normalisation_cost(_reciprocal_of_sums(n)) + KernelCost(0, 8, 0)
    return _row_maxima_cost(d, tournament) + (exponential + product).parallel(scores) + row.parallel(d.rows)


SOFTMAX_DOMAINS = (
    Domain("score minus row maximum", exponents, -16_000, 0, hard=True),
    Domain("row maximum", row_maximum, -16_000, 16_000, hard=True),
)


@kernel(
    "softmax",
    "narrow-tournament",
    *SOFTMAX_DOMAINS,
    operand_bits=_narrow_rows,
    cost=lambda d: _softmax_cost(d, PAIRS),
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
    return map_share(scores, lambda share: _softmax_of_share(rt, share, allowed, causal, PAIRS))


@kernel(
    "softmax", "wide-tournament", *SOFTMAX_DOMAINS, operand_bits=_narrow_rows, cost=lambda d: _softmax_cost(d, FOURS)
)
def wide_softmax(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Return the steps of `softmax` with a tournament of fours: 4 rounds where two halvings take 6, for more bytes."""
    return map_share(scores, lambda share: _softmax_of_share(rt, share, allowed, causal, FOURS))


def _softmax_of_share(
    rt: Runtime, share: Tensor, allowed: Tensor | None, causal: bool, tournament: Tournament
) -> Tensor:
    """Return a share of the softmax of a share of the scores (..., m, n)."""
    rows, scores = visible_scores(rt, share, allowed, causal)
    visible = scores.to(comparison.NARROW)
    largest = rows.row_maxima(rt, visible, tournament.largest, tournament.size)
    powers = narrow.evaluate(rt, visible - rows.broadcast(largest), EXP, bits=64)
    sums = rows.row_sums(powers)
    form = _reciprocal_of_sums(rows.width)
    words = RowWords(rt, powers, sums.numel(), lambda values: rows.broadcast(values.view(sums.shape)))
    inverse, (words.m,) = normalise(rt, sums.reshape(-1), form, [words.opening])
    surplus = RECIPROCAL.fraction_bits + form.intervals - 1
    product = shift_locally(words.multiply(inverse), surplus)
    weights = rows.scatter(narrow.lift(rt, product, _weight_bits(rows.width), LOWEST_WEIGHT))
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
        cost += _lift_cost(NARROW_BITS).parallel(d.elements)
    if d.operand(1):
        cost += KernelCost(1, 8 * (d.elements + d.operand(1)), 8 * d.elements) + TRUNCATION.parallel(d.elements)
    return cost


def _norm_bits(op: Op) -> tuple[int, ...]:
    """Return the bits of rows, more where they are halved, and of further operands."""
    return 48 if op.attribute("halvings") else 32, *(64,) * (len(op.shapes) - 1)


def _divide_by_rms(rt: Runtime, x: Tensor, eps: float, bits: int, halvings: int) -> Tensor:
    """Return x / sqrt(mean of x^2 + eps) over the last dimension of values that are right in 32 bits.

    Halving x, local where it is right in 48 bits, changes nothing but the last bits of the result.

    1. Open x (1 round, 4 bytes): the sum v of squares of each row is local.
    2. 1 / sqrt(v + d eps) (5 rounds), truncated to 32 fraction bits (1 round, both per row).
    3. Multiply by it: one number is opened per row (1 round). Shift locally, and lift to 64 bits (1 round).

    9 rounds, 8 without the lift.
    """
    rows = shift_locally(x, halvings) if halvings else x
    rows, eps = rows.reshape(-1, x.shape[-1]), eps / 4**halvings
    words = RowWords(rt, rows, len(rows), lambda values: values.unsqueeze(-1), squares=True)
    (words.m,) = rt.open(words.opening)
    v = words.square_sums() + (round(x.shape[-1] * eps * 2 ** (2 * FRACTION_BITS)) if rt.rank == 0 else 0)
    form, doublings = _inverse_root(x.shape[-1])
    root, _ = normalise(rt, v, form)
    surplus = form.series.fraction_bits + MAX_POWER_OF_4 - ROOT_FRACTION_BITS
    product = words.multiply(truncate(rt, root, surplus))
    result = shift_locally(product, ROOT_FRACTION_BITS - doublings)
    if bits > NARROW_BITS:
        result = narrow.lift(rt, result)
    return result.view(x.shape)


def _centred_magnitude(x: Tensor, *_: Tensor) -> Tensor:
    """Return |x - mean|."""
    return (x - x.mean(-1, keepdim=True)).abs()


CENTRED = Domain("|centred input|", _centred_magnitude, 0, LIFTED.high, hard=True)


@kernel(
    "layernorm",
    "one-opening",
    *CENTRED_SQUARES,
    Domain("|mean|", absolute_mean, 0, 16_000, hard=True),
    CENTRED,
    operand_bits=lambda op: _norm_bits(op) if op.attribute("centred") else (64,) * len(op.shapes),
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
    halvings: int = 0,
    bits: int = 64,
) -> Shared:
    """Return LayerNorm: a row's sum of squares is brought to [1, 4) first, and every element is opened once.

    1. Subtract the mean, truncated wrap-free (1 round), unless the rows are centred; halve them `halvings` times.
    2. Normalise, see `_divide_by_rms` (9 rounds).
    3. Multiply by gamma and truncate wrap-free (2 rounds); add beta.
    """

    def apply(share: Tensor) -> Tensor:
        rows = share if centred else subtract_mean(rt, share)
        return apply_affine(rt, _divide_by_rms(rt, rows, eps, 64 if gamma is not None else bits, halvings), gamma, beta)

    return map_share(x, apply)


@kernel(
    "rmsnorm",
    "one-opening",
    *SQUARES,
    LIFTED,
    operand_bits=lambda op: _norm_bits(op),
    can_narrow=True,
    cost=_norm_cost,
)
def rmsnorm(rt: Runtime, x: Shared, gamma: Shared = None, *, eps: float, halvings: int = 0, bits: int = 64) -> Shared:
    """Return RMSNorm: the steps of `layernorm` without centring."""

    def apply(share: Tensor) -> Tensor:
        return apply_affine(rt, _divide_by_rms(rt, share, eps, 64 if gamma is not None else bits, halvings), gamma)

    return map_share(x, apply)
