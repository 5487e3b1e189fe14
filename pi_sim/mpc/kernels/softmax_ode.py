"""SHAFT's softmax: the answer of a differential equation, for which nothing is divided and no maximum is sought."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.kernels.softmax import mask_plain_scores
from pi_sim.mpc.primitives.function import FRACTION_BITS

ODE_STEPS = 16
ODE_MIN_SCORE, ODE_MAX_SCORE = -4.0, 12.0
"""Between which scores are clipped: further apart than STEPS, a step would leave [0, 1]."""


def _visible_scores(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    found = mask_plain_scores(scores, allowed)
    return found[found.isfinite()]


@kernel("softmax", "ode", Domain("score", _visible_scores, ODE_MIN_SCORE, ODE_MAX_SCORE))
def ode(scores: Any, allowed: Tensor | None = None, *, causal: bool = False) -> Any:
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
    g = map_share(scores, lambda share: _uniform_rows(keep) if session.rank() == 0 else torch.zeros_like(share))
    for _ in range(ODE_STEPS):
        g = g + (x - (g * x).sum(-1, keepdim=True)) * g
    return map_share(g, lambda share: share * keep)


def _uniform_rows(keep: Tensor) -> Tensor:
    """1 / n where n places of the row count."""
    return torch.div(keep * 2**FRACTION_BITS, keep.sum(-1, keepdim=True).clamp(min=1)).round().long()


def _clip_scores(x: Any) -> Any:
    """x + relu(LOWEST - x) - relu(x - HIGHEST), both in the same rounds."""
    below, above = ODE_MIN_SCORE - x, x - ODE_MAX_SCORE
    outside = map_share(x, lambda _: torch.stack([below.share, above.share])).relu()
    return map_share(x, lambda share: share + outside.share[0] - outside.share[1])
