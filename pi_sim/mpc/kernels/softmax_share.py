"""MPCFormer's stand-ins for softmax: a row's share in its sum, of something cheaper than the exponential."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import Domain, kernel
from pi_sim.mpc.kernels.softmax import mask_plain_scores

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
def two_relu(scores: Any, allowed: Tensor | None = None, *, causal: bool = False) -> Any:
    """(relu(x) + 0.01) / sum: another function than softmax, for models that were distilled to it.

    1. relu(x) (9 rounds, 232 bytes).
    2. Its share of the row, see `_share` (39 rounds, 8 bytes, and 560 for each row).

    48 rounds, 240 bytes per element, hidden or not, and 560 per row; 128 and 352 offline.
    Source: MPCFormer (ICLR 2023), section 3.1, after SecureML; the mask and the floor are ours.
    """
    return _divide_by_row_sum(scores.relu() + RELU_FLOOR, allowed)


@kernel("softmax", "2quad", *_substitute_domains(_shifted_square, "2Quad"))
def two_quad(scores: Any, allowed: Tensor | None = None, *, causal: bool = False) -> Any:
    """(x + 5)^2 / sum: another function than softmax, for models that were distilled to it.

    1. (x + 5)^2, by a product as in MPCFormer's code, where a square would take half (1 round, 16 bytes).
    2. Its share of the row, see `_share` (39 rounds, 8 bytes, and 560 for each row).

    40 rounds, 24 bytes per element, hidden or not, and 560 per row; 16 and 352 offline.
    Source: MPCFormer (ICLR 2023), section 3.1, and its code, `softmax_2QUAD`; the mask is ours.
    """
    shifted = scores + QUAD_SHIFT
    return _divide_by_row_sum(shifted * shifted, allowed)


def _divide_by_row_sum(kept: Any, allowed: Tensor | None) -> Any:
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
