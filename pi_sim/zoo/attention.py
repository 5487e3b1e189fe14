"""Attention without an exponential, and with a learned temperature, for all Hugging Face models.

transformers looks attention up by name, so the config alone selects it. Scores are (B, H, T, T); a mask holds 0 where a
query may see a key and a very negative number where it may not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import repeat_kv

from pi_sim.errors import UsageError

Normaliser = Callable[[Tensor, Tensor | None], Tensor]

EAGER_SOFTMAX = "eager"
"""transformers' name for plain softmax attention."""
QUAD_SHIFT = 5.0
"""MPCFormer's constant c: scores seldom fall below -c, where (x + c)^2 would rise again."""
UNSUPPORTED_SCORE_OPTIONS = ("softcap", "s_aux")
"""Options of transformers that surgery would drop: a cap of the scores (Gemma 2) and attention sinks (gpt-oss)."""
RELU_FLOOR = 0.01
"""Added to every rectified score, so that a row without a positive score has a sum to divide by."""


def softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """exp(x) / sum exp(x)."""
    return F.softmax(scores if mask is None else scores + mask, dim=-1)


def two_relu(scores: Tensor, mask: Tensor | None) -> Tensor:
    """relu(x) / sum relu(x) (MPCFormer, arXiv 2211.01452, section 3.1, after SecureML)."""
    return _divide_by_sum(F.relu(scores) + RELU_FLOOR, mask)


def two_quad(scores: Tensor, mask: Tensor | None) -> Tensor:
    """(x + c)^2 / sum (x + c)^2 (MPCFormer, arXiv 2211.01452, section 3.1)."""
    return _divide_by_sum((scores + QUAD_SHIFT).square(), mask)


def _divide_by_sum(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return every score over the sum of its row's visible scores, exactly zero where the mask hides it.

    Rows are divided by their public length first: a secret sum that does not grow with it is safer to divide by.
    """
    allowed = torch.ones_like(scores) if mask is None else (mask > -1).to(scores.dtype)
    visible = scores * (allowed / allowed.sum(-1, keepdim=True))
    return visible / visible.sum(-1, keepdim=True)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    normalise: Normaliser,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Return values (B, T, H, d) averaged by normalised scores, and the normalised scores (B, H, T, T).

    Groups of heads share keys and values if there are fewer. Raises `UsageError` for a family that changes its scores
    in another way.
    """
    if unsupported := [name for name in UNSUPPORTED_SCORE_OPTIONS if options.get(name) is not None]:
        raise UsageError(f"{type(module).__name__} has {unsupported[0]} in its scores, which surgery would drop.")
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    if (inverse := getattr(module, "inverse_temperature", None)) is not None:
        scores = scores * inverse
    weights = normalise(scores, attention_mask).to(value.dtype)
    dropped = F.dropout(weights, p=dropout, training=module.training)
    return (dropped @ value).transpose(1, 2), weights


NORMALISERS: dict[str, Normaliser] = {"softmax": softmax, "2relu": two_relu, "2quad": two_quad}
ATTENTION_IMPLEMENTATIONS = {form: f"pi_sim_{form}" for form in NORMALISERS}
for form, name in ATTENTION_IMPLEMENTATIONS.items():
    AttentionInterface.register(name, partial(attend, normalise=NORMALISERS[form]))
    AttentionMaskInterface.register(name, eager_mask)


def add_temperature(attention: nn.Module, heads: int) -> None:
    """Add a learned temperature to every head; AERO (arXiv 2410.13060) learns one for every query as well.

    Its reciprocal (H, 1, 1) is stored: it starts at 1 and could be folded into the queries' projection.
    """
    attention.inverse_temperature = nn.Parameter(torch.ones(heads, 1, 1))
