"""Sums, products and quotients, in which either side may be public."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.aten.registry import require, translates
from pi_sim.graph.aten.shapes import expand, view
from pi_sim.graph.builder import Builder, MaskedScores, Secret
from pi_sim.graph.ops import Shape

MASKED_BELOW = -1e4
"""Public summands below this mean "not allowed": transformers masks with the type's lowest number."""


@translates("add")
def add(build: Builder, shape: Shape, a: Any, b: Any, *, alpha: float = 1) -> Secret | MaskedScores:
    require(alpha == 1, "it scales its summand")
    x, other = (a, b) if isinstance(a, Secret | MaskedScores) else (b, a)
    if isinstance(x, MaskedScores):
        return _combine_masks(build, shape, x, other)
    if isinstance(other, Secret):
        return build.emit("add", [x, other], shape)
    allowed, rest = build.compute_once(_split_mask, other) if isinstance(other, Tensor) else _split_mask(torch.as_tensor(other))
    x = expand(build, shape, x) if rest is None else build.emit("add", [x, rest], shape)
    return x if allowed is None else MaskedScores(x, allowed)


def _split_mask(summand: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Where a public summand leaves scores visible, and what it adds there; None for everywhere and for nothing."""
    allowed = summand > MASKED_BELOW
    rest = summand.float() if bool(allowed.all()) else torch.where(allowed, summand.float(), 0.0)
    return None if bool(allowed.all()) else allowed, rest if bool(rest.any()) else None


def _combine_masks(build: Builder, shape: Shape, x: MaskedScores, other: Any) -> MaskedScores:
    """One mask after another."""
    require(isinstance(other, Tensor), "masked scores may only go through softmax")
    more = add(build, shape, x.scores, other)
    return MaskedScores(more.scores, x.allowed & more.allowed) if isinstance(more, MaskedScores) else MaskedScores(more, x.allowed)


@translates("sub")
def subtract(build: Builder, shape: Shape, a: Any, b: Any, *, alpha: float = 1) -> Secret | MaskedScores:
    return add(build, shape, a, negate(build, b.shape, b) if isinstance(b, Secret) else -b, alpha=alpha)


@translates("rsub")
def subtract_from(build: Builder, shape: Shape, a: Any, b: Any, alpha: float = 1) -> Secret | MaskedScores:
    return subtract(build, shape, b, a, alpha=alpha)


@translates("neg")
def negate(build: Builder, shape: Shape, x: Secret) -> Secret:
    return build.emit("neg", [x], shape)


@translates("mul")
def multiply(build: Builder, shape: Shape, a: Any, b: Any) -> Secret:
    if isinstance(a, Secret) and isinstance(b, Secret):
        return build.emit("multiply", [a, b], shape)
    x, factor = (a, b) if isinstance(a, Secret) else (b, a)
    if not isinstance(factor, Tensor) or factor.numel() == 1:
        return expand(build, shape, _emit_scale(build, x, float(factor)))
    allowed = factor != 0
    if not torch.equal(allowed.to(factor.dtype), factor):
        return build.emit("scale_by", [x, factor.float()], shape)
    return expand(build, shape, x) if bool(allowed.all()) else build.emit("mask", [x, allowed], shape)


@translates("div")
def divide(build: Builder, shape: Shape, a: Any, b: Any, *, rounding_mode: str | None = None) -> Secret:
    require(rounding_mode is None, "it rounds")
    if isinstance(b, Secret):
        return multiply(build, shape, a, reciprocal(build, b.shape, b))
    require(bool(torch.as_tensor(b).all()), "the divisor is zero")
    return multiply(build, shape, a, 1 / b)


@translates("reciprocal")
def reciprocal(build: Builder, shape: Shape, x: Secret) -> Secret:
    return build.emit("reciprocal", [x], shape)


def _emit_scale(build: Builder, x: Secret, factor: float) -> Secret:
    return x if factor == 1 else build.emit("scale", [x], x.shape, factor=factor)


@translates("square")
def square(build: Builder, shape: Shape, x: Secret) -> Secret:
    return build.emit("square", [x], shape)


@translates("pow")
def power(build: Builder, shape: Shape, x: Secret, exponent: Any) -> Secret:
    require(exponent == 2, "its exponent is not 2")
    return square(build, shape, x)


@translates("sum")
def sum_over_dim(build: Builder, shape: Shape, x: Secret, dims: list[int], keepdim: bool = False) -> Secret:
    require(len(dims) == 1, "it is not over one dimension")
    dim = dims[0] % len(x.shape)
    return view(build, shape, build.emit("sum", [x], (*x.shape[:dim], 1, *x.shape[dim + 1 :]), dim=dim))


@translates("mean")
def mean(build: Builder, shape: Shape, x: Secret, dims: list[int], keepdim: bool = False) -> Secret:
    return multiply(build, shape, sum_over_dim(build, shape, x, dims, keepdim), 1 / x.shape[dims[0]])


@translates("zeros_like")
def zeros_like(build: Builder, shape: Shape, x: Secret, **_: Any) -> Tensor:
    """Of its operand, only the shape is used: the result is public."""
    return torch.zeros(shape)
