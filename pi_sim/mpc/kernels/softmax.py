"""exp(x) / sum exp(x) over the last dimension, with a public mask of allowed places."""

# MERGED: Stock softmax without what it does not need: CrypTen finds the place of each row's maximum beside its value.
# MERGED: SHAFT's softmax: the answer of a differential equation, for which nothing is divided and no maximum is sought.
# MERGED: MPCFormer's stand-ins for softmax: a row's share in its sum, of something cheaper than the exponential.

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pi_sim.mpc import backend
from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import KERNELS, Domain, kernel
from pi_sim.mpc.primitives import beaver
from pi_sim.mpc.primitives.causal import CausalRows
from pi_sim.mpc.primitives.fourier import FourierSeries
from pi_sim.mpc.primitives.inverse import reciprocal
from pi_sim.mpc.primitives.piecewise import Linear, Piecewise, evaluate
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.runtime import Runtime

HIDDEN_SCORE = -200.0
"""The score of a place that is not allowed: its exponential rounds to zero as long as the row maximum is above -188."""
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
"""exp(x) on [-11, 0], of period 32, to 0.00002."""
HIDDEN_SCORE_SHARE = -(2**14) << FRACTION_BITS
"""The score of a place that another mask hides."""
EXP = Piecewise(thresholds=(-11.0,), pieces=(Linear(), EXP_SERIES))


def mask_plain_scores(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Plain scores, hidden ones at minus infinity."""
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


def _exponents(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Exponents of the places that count."""
    visible = mask_plain_scores(scores, allowed)
    exponents = visible - visible.amax(-1, keepdim=True)
    return exponents[visible.isfinite()]


def _row_maximum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Row maxima, which must stand well above the hidden places and not too far."""
    return mask_plain_scores(scores, allowed).amax(-1)


def _row_sum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """What each row is divided by: 1 where one place has all, n where n places are alike."""
    visible = mask_plain_scores(scores, allowed)
    return (visible - visible.amax(-1, keepdim=True)).exp().sum(-1)


@kernel(
    "softmax",
    "limit-newton",
    Domain("score minus row maximum", _exponents, -490, 0),
    Domain("row maximum", _row_maximum, HIDDEN_SCORE + 12, HIDDEN_SCORE + 490),
    Domain("row sum of exponentials", _row_sum, 1, 50),
)
def limit_newton(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Stock CrypTen, with places that are not allowed made exactly zero, which a causal mask makes no cheaper.

    1. Replace the scores of hidden places by a low public number: local, the mask is public.
    2. Subtract the row maximum, found by a tree of comparisons; CrypTen computes its one-hot place too.
    3. exp(x) = (1 + x / 256)^256 by 8 squarings, whose sign and size are right down to x of about -490.
    4. Divide by the sum: 10 Newton steps for its reciprocal, then one product. Right to 4% for sums up to 50, see
       `reciprocal`: off by 27% at 128, huge from 180 on, which a flat row over as many places reaches.
    5. Zero the hidden places: local.

    116 rounds and 744 bytes per element for rows of 128, the maximum being 79 and 670 of them.
    Source: CrypTen (arXiv 2109.00984), sections 4.3 and 4.4; the mask is ours.
    """
    visible, keep = hide_scores(scores, allowed)
    return map_share(visible.softmax(-1), lambda share: share * keep)


def hide_scores(scores: Shared, allowed: Tensor | None) -> tuple[Shared, Tensor | int]:
    """Shared scores, hidden ones at a low public number; and one where a place counts, zero elsewhere."""
    if allowed is None:
        return scores, 1
    keep = allowed.long()
    return map_share(scores, lambda share: share * keep) + (1 - keep) * HIDDEN_SCORE, keep


@kernel(
    "softmax",
    "tournament",
    Domain("score minus row maximum", _exponents, -16_000, 0),
    Domain("row maximum", _row_maximum, -16_000, 16_000),
)
def tournament(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Of a causal mask only the places that it leaves are computed; those of another one are made low, then zero.

    1. Row maxima by a tournament of masked comparisons (4 rounds for each halving, 10 3/8 bytes for each place).
    2. exp(x - maximum): zero below -11, else a Fourier series (5 rounds, 14 3/8 bytes for each place).
    3. The reciprocal of each row's sum, its range brought to [1, 2) first (10 rounds for each row).
    4. Multiply and truncate (2 rounds, 16 bytes for each place).

    17 rounds, and 4 for each halving of the longest row: 45 for 128. Right to 0.0007 for rows of up to 20 places
    of any kind, and to 0.00003 for each place of longer ones: what every exponential is off by adds up in a row's sum.
    Source: the masked series is SHAFT's (NDSS 2025); the rest is ours.
    """
    return map_share(scores, lambda share: _tournament_on_share(rt, share, allowed, causal))


def _tournament_on_share(rt: Runtime, share: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
    m, n = share.shape[-2:]
    rows = CausalRows(torch.arange(n - m + 1, n + 1) if causal else torch.full((m,), n), n)
    if allowed is not None and not causal:
        share = share * allowed.long() + (HIDDEN_SCORE_SHARE * ~allowed if rt.rank == 0 else 0)
    places = rows.gather(share)
    powers = evaluate(rt, places - rows.broadcast(rows.row_maxima(rt, places)), EXP)
    inverse = reciprocal(rt, rows.row_sums(powers), n.bit_length() + 1)
    found = rows.scatter(truncate(rt, beaver.multiply(rt, powers, rows.broadcast(inverse)), FRACTION_BITS))
    return found if allowed is None or causal else found * allowed.long()


@kernel("softmax", "limit-newton-max", *KERNELS["softmax", "limit-newton"].domains)
def limit_newton_max(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """The steps of `limit_newton`, the row maximum by a tournament of max(a, b) = b + relu(a - b), stock ReLUs.

    100 rounds and 305 bytes per element for rows of 128, the maximum being 63 and 230 of them.
    Source: CrypTen (arXiv 2109.00984), sections 4.2 to 4.4.
    """
    visible, keep = hide_scores(scores, allowed)
    powers = (visible - _relu_tournament(visible)).exp()
    with backend.override_settings({"functions.reciprocal_all_pos": True}):
        inverse = powers.sum(-1, keepdim=True).reciprocal()
    return map_share(powers * inverse, lambda share: share * keep)


def _relu_tournament(x: Shared) -> Shared:
    """Of each row (..., n): (..., 1); 9 rounds for each halving, 232 bytes for each place but one."""
    while (n := x.share.shape[-1]) > 1:
        first, second, odd = x.share.split([n // 2, n // 2, n % 2], -1)
        won = map_share(x, lambda _: first - second).relu().share + second  # noqa: B023
        x = map_share(x, lambda _: torch.cat([won, odd], -1))  # noqa: B023
    return x


ODE_STEPS = 16
ODE_MIN_SCORE, ODE_MAX_SCORE = -4.0, 12.0
"""Between which scores are clipped: further apart than STEPS, a step would leave [0, 1]."""


def _visible_scores(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    found = mask_plain_scores(scores, allowed)
    return found[found.isfinite()]


@kernel("softmax", "ode", Domain("score", _visible_scores, ODE_MIN_SCORE, ODE_MAX_SCORE))
def ode(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """Euler's method for g' = (x - <g, x>) g, which leads from g = 1 / n at time 0 to softmax(x) at time 1.

    1. Zero the scores of hidden places, and begin with g = 1 / n at the n others of a row: local, the mask is public.
    2. Clip the scores to [-4, 12] by two ReLUs at once (9 rounds, 464 bytes).
    3. Sixteen times: g := g + (x / 16 - <g, x / 16>) g (2 rounds, 32 bytes).
    4. Zero the hidden places, which local truncations may have left at a unit: local.

    41 rounds, 976 bytes and 496 offline per element, hidden or not. A step takes 1 + x for exp(x): one high
    score among low ones is off by up to 0.01 in a row of 2, 0.14 in one of 128 and 0.31 in one of 1024.
    Source: SHAFT (NDSS 2025) and its code, `approximations.py`, with its default settings; the mask is ours.
    """
    keep = torch.ones_like(scores.share) if allowed is None else allowed.long().expand(scores.share.shape)
    x = _clip_scores(map_share(scores, lambda share: share * keep)) / ODE_STEPS
    g = map_share(scores, lambda share: _uniform_rows(keep) if rt.rank == 0 else torch.zeros_like(share))
    for _ in range(ODE_STEPS):
        g = g + (x - (g * x).sum(-1, keepdim=True)) * g
    return map_share(g, lambda share: share * keep)


def _uniform_rows(keep: Tensor) -> Tensor:
    """1 / n where n places of the row count."""
    return torch.div(keep * 2**FRACTION_BITS, keep.sum(-1, keepdim=True).clamp(min=1)).round().long()


def _clip_scores(x: Shared) -> Shared:
    """x + relu(LOWEST - x) - relu(x - HIGHEST), both in the same rounds."""
    below, above = ODE_MIN_SCORE - x, x - ODE_MAX_SCORE
    outside = map_share(x, lambda _: torch.stack([below.share, above.share])).relu()
    return map_share(x, lambda share: share + outside.share[0] - outside.share[1])


QUAD_SHIFT = 5.0
"""MPCFormer's constant: scores seldom fall below -5, where (x + 5)^2 would rise again."""
RELU_FLOOR = 0.01
"""Added to every rectified score, so that a row without a positive one still has a sum to divide by."""
ScoreFunction = Callable[[Tensor], Tensor]


def _relu_plus_floor(scores: Tensor) -> Tensor:
    return scores.relu() + RELU_FLOOR


def _shifted_square(scores: Tensor) -> Tensor:
    return (scores + QUAD_SHIFT).square()


def _row_mean(form: ScoreFunction, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """What each row is divided by."""
    return (form(scores) * _mean_weights(scores, allowed)).sum(-1)


def _distance_from_softmax(form: ScoreFunction, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    kept = form(scores) * _mean_weights(scores, allowed)
    return (kept / kept.sum(-1, keepdim=True) - torch.softmax(mask_plain_scores(scores, allowed), -1)).abs()


def _mean_weights(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """1 / n at the n places of a row that count, zero at the others."""
    keep = torch.ones_like(scores) if allowed is None else allowed.expand(scores.shape).to(scores.dtype)
    return keep / keep.sum(-1, keepdim=True).clamp(min=1)


def _substitute_domains(form: ScoreFunction, name: str) -> tuple[Domain, Domain]:
    return (
        Domain("row mean", partial(_row_mean, form), 0.005, 50),
        Domain(f"distance of {name} from softmax", partial(_distance_from_softmax, form), 0, 0.05),
    )


@kernel("softmax", "2relu", *_substitute_domains(_relu_plus_floor, "2ReLU"))
def two_relu(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """(relu(x) + 0.01) / sum: another function than softmax, for models that were distilled to it.

    1. relu(x) (9 rounds, 232 bytes).
    2. Its share of the row, see `_share` (39 rounds, 8 bytes, and 560 for each row).

    48 rounds, 240 bytes per element, hidden or not, and 560 per row; 128 and 352 offline.
    Source: MPCFormer (ICLR 2023), section 3.1, after SecureML; the mask and the floor are ours.
    """
    return _divide_by_row_sum(scores.relu() + RELU_FLOOR, allowed)


@kernel("softmax", "2quad", *_substitute_domains(_shifted_square, "2Quad"))
def two_quad(rt: Runtime, scores: Shared, allowed: Tensor | None = None, *, causal: bool = False) -> Shared:
    """(x + 5)^2 / sum: another function than softmax, for models that were distilled to it.

    1. (x + 5)^2, by a product as in MPCFormer's code, where a square would take half (1 round, 16 bytes).
    2. Its share of the row, see `_share` (39 rounds, 8 bytes, and 560 for each row).

    40 rounds, 24 bytes per element, hidden or not, and 560 per row; 16 and 352 offline.
    Source: MPCFormer (ICLR 2023), section 3.1, and its code, `softmax_2QUAD`; the mask is ours.
    """
    shifted = scores + QUAD_SHIFT
    return _divide_by_row_sum(shifted * shifted, allowed)


def _divide_by_row_sum(kept: Shared, allowed: Tensor | None) -> Shared:
    """Each place's share of its row, exact zeros where nothing is allowed.

    1. Zero the hidden places; the mean of the n others: local, the mask is public. A mean is safer to divide by than
       MPCFormer's sum, which grows with the row beyond what the reciprocal is right for.
    2. Reciprocal of the mean, of either sign as CrypTen divides: a comparison, two products with the sign, and 28
       rounds for a positive number, see `reciprocal` (38 rounds, 552 bytes for each row).
    3. Multiply by it (1 round, 8 bytes, and 8 for each row), and by 1 / n, or zero at hidden places: local.
    """
    weights = _mean_weights(torch.empty_like(kept.share, dtype=torch.float32), allowed)
    counting = kept if allowed is None else map_share(kept, lambda share: share * allowed.long())
    mean = counting.sum(-1, keepdim=True) * weights.amax(-1, keepdim=True)
    return counting * mean.reciprocal() * weights
