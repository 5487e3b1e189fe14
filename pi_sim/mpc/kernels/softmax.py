"""exp(x) / sum exp(x) over the last dimension, with a public mask of allowed places."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.primitives import products
from pi_sim.mpc.primitives.function import FRACTION_BITS, FourierSeries, Linear, Piecewise
from pi_sim.mpc.primitives.piecewise import evaluate
from pi_sim.mpc.primitives.ragged import CausalRows
from pi_sim.mpc.primitives.rows import reciprocal
from pi_sim.mpc.primitives.truncation import truncate

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
def limit_newton(scores: Any, allowed: Tensor | None = None, *, causal: bool = False) -> Any:
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


def hide_scores(scores: Any, allowed: Tensor | None) -> tuple[Any, Tensor | int]:
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
def tournament(scores: Any, allowed: Tensor | None = None, *, causal: bool = False) -> Any:
    """Of a causal mask only the places that it leaves are computed; those of another one are made low, then zero.

    1. Row maxima by a tournament of masked comparisons (4 rounds for each halving, 10 3/8 bytes for each place).
    2. exp(x - maximum): zero below -11, else a Fourier series (5 rounds, 14 3/8 bytes for each place).
    3. The reciprocal of each row's sum, its range brought to [1, 2) first (10 rounds for each row).
    4. Multiply and truncate (2 rounds, 16 bytes for each place).

    17 rounds, and 4 for each halving of the longest row: 45 for 128. Right to 0.0007 for rows of up to 20 places
    of any kind, and to 0.00003 for each place of longer ones: what every exponential is off by adds up in a row's sum.
    Source: the masked series is SHAFT's (NDSS 2025); the rest is ours.
    """
    return map_share(scores, lambda share: _tournament_on_share(share, allowed, causal))


def _tournament_on_share(share: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
    m, n = share.shape[-2:]
    rows = CausalRows(torch.arange(n - m + 1, n + 1) if causal else torch.full((m,), n), n)
    if allowed is not None and not causal:
        share = share * allowed.long() + (HIDDEN_SCORE_SHARE * ~allowed if session.rank() == 0 else 0)
    places = rows.gather(share)
    powers = evaluate(places - rows.broadcast(rows.row_maxima(places)), EXP)
    inverse = reciprocal(rows.row_sums(powers), n.bit_length() + 1)
    found = rows.scatter(truncate(products.multiply(powers, rows.broadcast(inverse)), FRACTION_BITS))
    return found if allowed is None or causal else found * allowed.long()
