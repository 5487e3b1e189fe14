"""Scores, what hides some of them, and the softmax over the rest."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.aten.arithmetic import MASKED_BELOW, add, multiply
from pi_sim.graph.aten.layers import matmul
from pi_sim.graph.aten.registry import require, translates
from pi_sim.graph.aten.shapes import expand, transpose, view
from pi_sim.graph.builder import Builder, MaskedScores, Secret
from pi_sim.graph.ops import Attribute, Shape


@translates("softmax", "_softmax")
def softmax(build: Builder, shape: Shape, x: Secret | MaskedScores, dim: int, *_: Any) -> Secret:
    require(dim in (-1, len(shape) - 1), "it is not over the last dimension")
    if isinstance(x, Secret):
        return build.emit("softmax", [x], shape)
    known: dict[str, Attribute] = {"causal": True} if build.compute_once(is_causal_mask, x.allowed) else {}
    return build.emit("softmax", [x.scores, x.allowed], shape, **known)


def is_causal_mask(allowed: Tensor) -> bool:
    """Whether the last of m rows sees all n places, and each row before it one less than the next."""
    m, n = allowed.shape[-2:] if allowed.dim() > 1 else (0, 0)
    return 0 < m <= n and bool((allowed == torch.ones(m, n, dtype=torch.bool).tril(n - m)).all())


@translates("where")
def where(build: Builder, shape: Shape, condition: Any, a: Any, b: Any) -> Secret | MaskedScores:
    """A choice by a public condition: each side where it is chosen, and zero elsewhere, summed."""
    require(isinstance(condition, Tensor), "its condition is secret")
    if isinstance(a, Secret) and not isinstance(b, Secret) and bool((torch.as_tensor(b) < MASKED_BELOW).all()):
        return mask_scores(build, shape, a, condition)
    return add(build, shape, _zero_unless_chosen(build, shape, a, condition), _zero_unless_chosen(build, shape, b, ~condition))


@translates("masked_fill")
def masked_fill(build: Builder, shape: Shape, x: Secret, hidden: Any, value: Any) -> Secret | MaskedScores:
    require(isinstance(hidden, Tensor), "its mask is secret")
    return where(build, shape, ~hidden, x, value)


def mask_scores(build: Builder, shape: Shape, x: Secret, allowed: Tensor) -> Secret | MaskedScores:
    """Scores of which only the allowed ones count."""
    x = expand(build, shape, x)
    return x if bool(allowed.all()) else MaskedScores(x, allowed)


def _zero_unless_chosen(build: Builder, shape: Shape, x: Any, chosen: Tensor) -> Secret | Tensor:
    if isinstance(x, Secret):
        return multiply(build, shape, x, chosen.expand(shape).float())
    return torch.where(chosen, torch.as_tensor(x, dtype=torch.float32), 0.0)


@translates("scaled_dot_product_attention")
def scaled_dot_product_attention(
    build: Builder,
    shape: Shape,
    query: Secret,
    key: Secret,
    value: Secret,
    mask: Any = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Secret:
    """softmax(query key' / sqrt(width)) value, step by step."""
    require(not dropout, "the model is in training mode")
    if enable_gqa:
        key, value = (_repeat_heads(build, each, query.shape[-3]) for each in (key, value))
    places = (*query.shape[:-1], key.shape[-2])
    rank = len(key.shape)
    turned = transpose(build, (*key.shape[:-2], key.shape[-1], key.shape[-2]), key, rank - 2, rank - 1)
    scores = multiply(build, places, matmul(build, places, query, turned), scale or query.shape[-1] ** -0.5)
    if is_causal:
        mask = torch.ones(places[-2:], dtype=torch.bool).tril()
    weights = softmax(build, places, _apply_mask(build, places, scores, mask), -1)
    return matmul(build, shape, weights, value)


def _repeat_heads(build: Builder, x: Secret, heads: int) -> Secret:
    """Keys or values (..., fewer heads, n, width), each for as many heads as share it."""
    *batch, shared, n, width = x.shape
    apart = view(build, (*batch, shared, 1, n, width), x)
    return view(build, (*batch, heads, n, width), expand(build, (*batch, shared, heads // shared, n, width), apart))


def _apply_mask(build: Builder, shape: Shape, scores: Secret, mask: Any) -> Secret | MaskedScores:
    """A mask is true where a score counts, or is added to it."""
    if mask is None:
        return scores
    require(isinstance(mask, Tensor), "its mask is secret")
    return mask_scores(build, shape, scores, mask) if mask.dtype == torch.bool else add(build, shape, scores, mask)
