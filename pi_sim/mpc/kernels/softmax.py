"""exp(x) / sum exp(x) over the last dimension, with a public mask of allowed places."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc.kernels.local import on_share
from pi_sim.mpc.kernels.registry import Domain, kernel

HIDDEN = -200.0
"""The score of a place that is not allowed: its exponential rounds to zero as long as the row maximum is above -188."""


def _visible(scores: Tensor, allowed: Tensor | None) -> Tensor:
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


def _below_maximum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Exponents of the places that count."""
    visible = _visible(scores, allowed)
    exponents = visible - visible.amax(-1, keepdim=True)
    return exponents[visible.isfinite()]


def _maximum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Row maxima, which must stand well above the hidden places and not too far."""
    return _visible(scores, allowed).amax(-1)


def _sum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """What each row is divided by: 1 where one place has all, n where n places are alike."""
    visible = _visible(scores, allowed)
    return (visible - visible.amax(-1, keepdim=True)).exp().sum(-1)


@kernel(
    "softmax",
    "limit-newton",
    Domain("score minus row maximum", _below_maximum, -490, 0),
    Domain("row maximum", _maximum, HIDDEN + 12, HIDDEN + 490),
    Domain("row sum of exponentials", _sum, 1, 50),
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
    if allowed is None:
        return scores.softmax(-1)
    keep = allowed.long()
    visible = on_share(scores, lambda share: share * keep) + (1 - keep) * HIDDEN
    return on_share(visible.softmax(-1), lambda share: share * keep)
