"""Softmax over the last dimension, with a public mask of allowed positions, and its substitutes.

Stock CrypTen; the same with a tournament for the maximum, since CrypTen also finds the position of each row's maximum;
our tournament of masked comparisons; SHAFT's differential equation, without a division or a maximum; and MPCFormer's
substitutes, which divide something cheaper than the exponential by its row sum.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor

from pi_sim.mpc import backend
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.costs import PRODUCT, TRUNCATION, Dimensions, KernelCost, exp_cost, reciprocal_cost
from pi_sim.mpc.kernels.local import map_share, with_share
from pi_sim.mpc.kernels.registry import KERNELS, Domain, kernel
from pi_sim.mpc.primitives import beaver
from pi_sim.mpc.primitives.fourier import FourierSeries
from pi_sim.mpc.primitives.piecewise import Linear, Piecewise, evaluate
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.rows import CausalRows, larger_by, reciprocal, rectify_masked
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.runtime import Runtime

HIDDEN_SCORE = -200.0
"""Score at hidden positions: its exponential rounds to zero as long as the row maximum is above -188."""
EXP_SERIES = FourierSeries(
    period_bits=21,
    fraction_bits=30,
    basis_bits=16,
    low=-0.5,
    constant=3.3713106,
    cosines=(
        *(1.0568988, 0.9775939, -2.4972449, -1.8181078, -2.5156279),
        *(2.2612364, 0.5625556, -0.417643, 0.0190088),
    ),
    sines=(
        *(3.7238987, 2.7988006, 2.2735908, 0.4696772, -2.1403658),
        *(-1.9030633, 1.363229, 0.0123209, -0.0502995),
    ),
)
"""exp on [-11, 0], period 32; max error 0.00002."""
HIDDEN_SCORE_SHARE = -(2**14) << FRACTION_BITS
"""Encoded score at positions that a mask other than the causal one hides."""
EXP = Piecewise(thresholds=(-11.0,), pieces=(Linear(), EXP_SERIES))


def mask_plain_scores(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Return plaintext scores, hidden ones at minus infinity."""
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


def exponents(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return score minus row maximum at the allowed positions."""
    visible = mask_plain_scores(scores, allowed)
    exponents = visible - visible.amax(-1, keepdim=True)
    return exponents[visible.isfinite()]


def row_maximum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return the maxima of rows of which a score is visible: well above the hidden scores, and not too far."""
    maxima = mask_plain_scores(scores, allowed).amax(-1)
    return maxima[maxima.isfinite()]


def _row_sum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return the row sums of exponentials: 1 where one position has all weight, n for n equal scores."""
    visible = mask_plain_scores(scores, allowed)
    sums = (visible - visible.amax(-1, keepdim=True)).exp().sum(-1)
    return sums[sums.isfinite()]


def _levels(length: int) -> int:
    """Return the number of halvings of a row in a tournament."""
    return (length - 1).bit_length()


def _limit_newton_max_cost(d: Dimensions) -> KernelCost:
    """A ReLU per comparison of the tournament, exp, a reciprocal per row, and the product."""
    maximum = KernelCost(9 * _levels(d.cols), 232 * (d.cols - 1), 120 * (d.cols - 1)).parallel(d.rows)
    product = KernelCost(rounds=1, bytes=8 * (d.elements + d.rows), offline=8 * d.elements)
    return maximum + exp_cost(d).parallel(d.elements) + reciprocal_cost(d).parallel(d.rows) + product


def _tournament_cost(d: Dimensions) -> KernelCost:
    """A masked ReLU per comparison, exp per visible score, a reciprocal per row, and a truncated product."""
    scores, (m, n) = d.elements, d.op.shapes[0][-2:]
    if d.op.attribute("causal"):
        scores -= d.rows * (m - 1) // 2
    comparisons = scores - d.rows
    maximum = KernelCost(4 * _levels(n), comparisons * Fraction(81, 8), comparisons * Fraction(309, 8))
    exponential = KernelCost(rounds=5, bytes=Fraction(113, 8), offline=Fraction(1493, 8))
    powers = n.bit_length()
    inverse = KernelCost(rounds=10, bytes=Fraction(513 + 17 * powers, 8), offline=121 + Fraction(109, 8) * powers)
    return maximum + (exponential + PRODUCT + TRUNCATION).parallel(scores) + inverse.parallel(d.rows)


def _row_division_cost(d: Dimensions) -> KernelCost:
    """Return the cost of `_divide_by_row_sum`: a reciprocal of either sign per row, and the product."""
    inverse = reciprocal_cost(d) + KernelCost(rounds=10, bytes=248, offline=128)
    return inverse.parallel(d.rows) + KernelCost(1, 8 * (d.elements + d.rows), 8 * d.elements)


@kernel(
    "softmax",
    "limit-newton",
    Domain("score minus row maximum", exponents, -490, 0),
    Domain("row maximum", row_maximum, HIDDEN_SCORE + 12, HIDDEN_SCORE + 490),
    Domain("row sum of exponentials", _row_sum, 1, 50),
    closed_form=False,
)
def limit_newton(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Return CrypTen's softmax, with exact zeros at hidden positions; a causal mask saves nothing.

    1. Replace the hidden scores by a low public number: local, the mask is public.
    2. Subtract the row maximum, by CrypTen's tree of comparisons, which also computes its one-hot position.
    3. exp(x) = (1 + x / 256)^256 by 8 squarings, whose sign and size are right down to x of about -490.
    4. Divide by the sum: 10 Newton steps for its reciprocal, then a product. Accurate to within 4% for sums up to 50,
       see `reciprocal_newton`: 27% at 128, huge from 180 on, which a flat row over as many positions reaches.
    5. Zero the hidden positions: local.

    CrypTen's tree halves a row of n floor(ln n) times and compares the rest pairwise, so its cost has no closed form.
    Source: CrypTen (arXiv 2109.00984), sections 4.3 and 4.4; the mask is ours.
    """
    visible, bits = hide_scores(scores, allowed)
    return map_share(visible.softmax(-1), lambda share: share * bits)


def hide_scores(scores: Shared, allowed: Tensor | None) -> tuple[Shared, Tensor | int]:
    """Return shared scores, hidden ones at a low public number, and the mask as integers (1 without a mask)."""
    if allowed is None:
        return scores, 1
    bits = allowed.long()
    return map_share(scores, lambda share: share * bits) + (1 - bits) * HIDDEN_SCORE, bits


@kernel(
    "softmax",
    "tournament",
    Domain("score minus row maximum", exponents, -16_000, 0, hard=True),
    Domain("row maximum", row_maximum, -16_000, 16_000, hard=True),
    cost=_tournament_cost,
)
def tournament(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Return softmax by masked comparisons; with a causal mask only the visible scores are computed.

    Scores that another mask hides are made low, and the results zero.

    1. Row maxima by a tournament of masked comparisons: 4 rounds per halving of the longest row.
    2. exp(x - maximum): zero below -11, else a Fourier series (5 rounds).
    3. Reciprocal of each row's sum, its range brought to [1, 2) first (10 rounds).
    4. Multiply and truncate wrap-free (2 rounds).

    Max error 0.0007 for rows of up to 20 positions of any kind, and 0.00003 per position of longer ones: the errors of
    the exponentials add up in a row's sum. Source: the masked series is SHAFT's (NDSS 2025); the rest is ours.
    """
    return map_share(scores, lambda share: _tournament_on_share(rt, share, allowed, causal))


def visible_scores(rt: Runtime, share: Tensor, allowed: Tensor | None, causal: bool) -> tuple[CausalRows, Tensor]:
    """Return the rows of scores (..., m, n), and a share of their visible elements, back to back.

    Scores that another mask than the causal one hides are made low.
    """
    if allowed is not None and not causal:
        share = share * allowed.long() + (HIDDEN_SCORE_SHARE * ~allowed if rt.rank == 0 else 0)
    rows = CausalRows.of_scores(share.shape[-2], share.shape[-1], causal)
    return rows, rows.gather(share)


def _tournament_on_share(rt: Runtime, share: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
    """Return a share of the softmax of a share of the scores (..., m, n)."""
    rows, visible = visible_scores(rt, share, allowed, causal)
    maxima = rows.row_maxima(rt, visible, larger_by(rectify_masked))
    powers = evaluate(rt, visible - rows.broadcast(maxima), EXP)
    inverse = reciprocal(rt, rows.row_sums(powers), share.shape[-1].bit_length() + 1)
    weights = rows.scatter(truncate(rt, beaver.multiply(rt, powers, rows.broadcast(inverse)), FRACTION_BITS))
    return weights if allowed is None or causal else weights * allowed.long()


@kernel("softmax", "limit-newton-max", *KERNELS["softmax", "limit-newton"].domains, cost=_limit_newton_max_cost)
def limit_newton_max(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Return the steps of `limit_newton` with the row maximum by a tournament of b + relu(a - b), stock ReLUs.

    Source: CrypTen (arXiv 2109.00984), sections 4.2 to 4.4.
    """
    visible, bits = hide_scores(scores, allowed)
    powers = (visible - _relu_tournament(visible)).exp()
    with backend.override_settings({"functions.reciprocal_all_pos": True}):
        inverse = powers.sum(-1, keepdim=True).reciprocal()
    return map_share(powers * inverse, lambda share: share * bits)


def _relu_tournament(x: Shared) -> Shared:
    """Return the maxima (..., 1) of rows (..., n): 9 rounds per halving, a ReLU for each score but one."""
    while (n := x.share.shape[-1]) > 1:
        first, second, odd = x.share.split([n // 2, n // 2, n % 2], -1)
        larger = with_share(x, first - second).relu().share + second
        x = with_share(x, torch.cat([larger, odd], -1))
    return x


ODE_STEPS = 16
ODE_MIN_SCORE, ODE_MAX_SCORE = -4.0, 12.0
"""Interval to which scores are clipped: were it wider than ODE_STEPS, a step would leave [0, 1]."""


def _visible_scores(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return the scores at the allowed positions."""
    visible = mask_plain_scores(scores, allowed)
    return visible[visible.isfinite()]


@kernel(
    "softmax", "ode", Domain("score", _visible_scores, ODE_MIN_SCORE, ODE_MAX_SCORE), rounds=41, bytes=976, offline=496
)
def ode(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Return Euler's method for g' = (x - <g, x>) g, which leads from g = 1 / n at time 0 to softmax(x) at time 1.

    1. Zero the hidden scores, and start with g = 1 / n at the n allowed positions of a row: local, the mask is public.
    2. Clip the scores to [-4, 12] by two ReLUs in the same rounds (9 rounds).
    3. In 16 steps, g := g + (x / 16 - <g, x / 16>) g, two products each (32 rounds).
    4. Zero the hidden positions, which local truncations may have left at a unit: local.

    Hidden scores cost as much as others. A step takes 1 + x for exp(x): one high score among low ones is off by up to
    0.01 in a row of 2, 0.14 in one of 128 and 0.31 in one of 1024.
    Source: SHAFT (NDSS 2025) and its code, `approximations.py`, with its default settings; the mask is ours.
    """
    bits = torch.ones_like(scores.share) if allowed is None else allowed.long().expand(scores.share.shape)
    x = _clip_scores(map_share(scores, lambda share: share * bits)) / ODE_STEPS
    g = map_share(scores, lambda share: _uniform_rows(bits) if rt.rank == 0 else torch.zeros_like(share))
    for _ in range(ODE_STEPS):
        g = g + (x - (g * x).sum(-1, keepdim=True)) * g
    return map_share(g, lambda share: share * bits)


def _uniform_rows(bits: Tensor) -> Tensor:
    """Return 1 / n at the n allowed positions of each row."""
    return torch.div(bits * 2**FRACTION_BITS, bits.sum(-1, keepdim=True).clamp(min=1)).round().long()


def _clip_scores(x: Shared) -> Shared:
    """Return x + relu(low - x) - relu(x - high), both ReLUs in the same rounds."""
    below, above = ODE_MIN_SCORE - x, x - ODE_MAX_SCORE
    outside = with_share(x, torch.stack([below.share, above.share])).relu()
    return map_share(x, lambda share: share + outside.share[0] - outside.share[1])


QUAD_SHIFT = 5.0
"""MPCFormer's constant: scores are seldom below -5, where (x + 5)^2 rises again."""
RELU_FLOOR = 0.01
"""Added to every rectified score, so that a row without a positive score has a nonzero sum."""
ScoreFunction = Callable[[Tensor], Tensor]


def _relu_plus_floor(scores: Tensor) -> Tensor:
    """Return what 2ReLU divides by its row sum."""
    return scores.relu() + RELU_FLOOR


def _shifted_square(scores: Tensor) -> Tensor:
    """Return what 2Quad divides by its row sum."""
    return (scores + QUAD_SHIFT).square()


def _row_mean(form: ScoreFunction, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return the mean over the allowed positions of each row."""
    return (form(scores) * _mean_weights(scores, allowed)).sum(-1)


def _distance_from_softmax(form: ScoreFunction, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return the distance of a substitute from softmax."""
    values = form(scores) * _mean_weights(scores, allowed)
    return (values / values.sum(-1, keepdim=True) - torch.softmax(mask_plain_scores(scores, allowed), -1)).abs()


def _mean_weights(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Return 1 / n at the n allowed positions of a row, zero at the others."""
    bits = torch.ones_like(scores) if allowed is None else allowed.expand(scores.shape).to(scores.dtype)
    return bits / bits.sum(-1, keepdim=True).clamp(min=1)


def _substitute_domains(form: ScoreFunction, name: str) -> tuple[Domain, Domain]:
    """Return the domains of a substitute: the mean that it divides by, and its distance from softmax."""
    return (
        Domain("row mean", partial(_row_mean, form), 0.005, 50),
        Domain(f"distance of {name} from softmax", partial(_distance_from_softmax, form), 0, 0.05),
    )


@kernel(
    "softmax",
    "2relu",
    *_substitute_domains(_relu_plus_floor, "2ReLU"),
    cost=lambda d: KernelCost(9, 232, 120).parallel(d.elements) + _row_division_cost(d),
)
def two_relu(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Return (relu(x) + 0.01) / row sum, a different function, for models that were distilled to it.

    1. relu(x) (9 rounds).
    2. Divide by the row sum, see `_divide_by_row_sum` (39 rounds).

    Hidden scores cost as much as others.
    Source: MPCFormer (ICLR 2023), section 3.1, after SecureML; the mask and the floor are ours.
    """
    return _divide_by_row_sum(scores.relu() + RELU_FLOOR, allowed)


@kernel(
    "softmax",
    "2quad",
    *_substitute_domains(_shifted_square, "2Quad"),
    cost=lambda d: PRODUCT.parallel(d.elements) + _row_division_cost(d),
)
def two_quad(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Return (x + 5)^2 / row sum, a different function, for models that were distilled to it.

    1. (x + 5)^2, by a product as in MPCFormer's code; a square would send half of it (1 round).
    2. Divide by the row sum, see `_divide_by_row_sum` (39 rounds).

    Hidden scores cost as much as others.
    Source: MPCFormer (ICLR 2023), section 3.1, and its code, `softmax_2QUAD`; the mask is ours.
    """
    shifted = scores + QUAD_SHIFT
    return _divide_by_row_sum(shifted * shifted, allowed)


def _divide_by_row_sum(values: Shared, allowed: Tensor | None) -> Shared:
    """Return each value over its row's sum, exact zeros at hidden positions.

    1. Zero the hidden positions; average the n others: local, the mask is public. Dividing by a mean is safer than by
       MPCFormer's sum, which grows with the row beyond the domain of the reciprocal.
    2. Reciprocal of the mean, of either sign as CrypTen divides: a comparison, two products with the sign, and
       `reciprocal_newton` (38 rounds).
    3. Multiply by it (1 round), and by 1 / n, or by zero at hidden positions: local.
    """
    weights = _mean_weights(torch.empty_like(values.share, dtype=torch.float32), allowed)
    visible = values if allowed is None else map_share(values, lambda share: share * allowed.long())
    mean = visible.sum(-1, keepdim=True) * weights.amax(-1, keepdim=True)
    return visible * mean.reciprocal() * weights
