"""ATen operations on secrets, translated into the graph's vocabulary: one short function each.

A translator gets the builder, the result's shape and the call's arguments, in which secrets are `Secret` and public
values are plain tensors and numbers.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.builder import Builder, Masked, Secret
from pi_sim.graph.ops import Shape

MASKED_BELOW = -1e4
"""Public summands below this mean "not allowed": transformers masks with the type's lowest number."""

Translator = Callable[..., Any]
TRANSLATORS: dict[str, Translator] = {}


class UnsupportedError(Exception):
    """A translator cannot express this call; `translate` adds where it stands."""


def aten(*names: str) -> Callable[[Translator], Translator]:
    """Register a translator for ATen operations, named without their overload."""

    def register(function: Translator) -> Translator:
        TRANSLATORS.update(dict.fromkeys(names, function))
        return function

    return register


def translate(build: Builder, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Translate one call; a `UsageError` names an operation that is outside the vocabulary, and its module."""
    name = str(node.target).removeprefix("aten.").split(".")[0]
    value = node.meta.get("val")
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    try:
        _only(name in TRANSLATORS, "it is not in the vocabulary")
        if name != "softmax":
            _only(not any(isinstance(arg, Masked) for arg in args), "masked scores may only go through softmax")
        return _call(TRANSLATORS[name], build, shape, *args, **kwargs)
    except UnsupportedError as reason:
        where = build.module or "the model"
        raise UsageError(
            f"cannot express aten.{name} of {where}: {reason}; teach it to pi_sim/graph/aten.py."
        ) from None


def _call(translator: Translator, *args: Any, **kwargs: Any) -> Any:
    """Call a translator; an argument that it does not name would change the result without a word."""
    try:
        inspect.signature(translator).bind(*args, **kwargs)
    except TypeError as error:
        raise UnsupportedError(str(error)) from None
    return translator(*args, **kwargs)


def _only(meant: bool, what: str) -> None:
    if not meant:
        raise UnsupportedError(what)


@aten("alias", "contiguous", "clone", "detach")
def same(build: Builder, shape: Shape, x: Secret, *, memory_format: Any = None) -> Secret:
    return x


@aten("to")
def to(build: Builder, shape: Shape, x: Secret, *args: Any, **kwargs: Any) -> Secret:
    """The ring has one type: a cast between floating types is none."""
    types = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)]
    _only(all(each.is_floating_point for each in types), "it casts to a type that is not floating")
    return x


@aten("dropout")
def dropout(build: Builder, shape: Shape, x: Secret, p: float, train: bool) -> Secret:
    _only(not train, "the model is in training mode")
    return x


@aten("_assert_tensor_metadata")
def assertion(build: Builder, shape: Shape, x: Secret, *_: Any, **__: Any) -> None:
    return None


@aten("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "flatten")
def view(build: Builder, shape: Shape, x: Secret, *_: Any) -> Secret:
    return x if shape == x.shape else build.emit("view", [x], shape, shape=shape)


@aten("transpose", "t")
def transpose(build: Builder, shape: Shape, x: Secret, dim0: int = 0, dim1: int = 1) -> Secret:
    rank = len(x.shape)
    return build.emit("transpose", [x], shape, dim0=dim0 % rank, dim1=dim1 % rank)


@aten("split")
def split(build: Builder, shape: Shape, x: Secret, size: int, dim: int = 0) -> list[Secret]:
    dim %= len(x.shape)
    return [_slice(build, x, dim, at, min(at + size, x.shape[dim])) for at in range(0, x.shape[dim], size)]


def _slice(build: Builder, x: Secret, dim: int, start: int, stop: int) -> Secret:
    shape = (*x.shape[:dim], stop - start, *x.shape[dim + 1 :])
    return x if shape == x.shape else build.emit("slice", [x], shape, dim=dim, start=start, stop=stop)


@aten("embedding")
def embedding(build: Builder, shape: Shape, table: Secret, indices: Secret | Tensor, *_: Any) -> Secret:
    """Secret indices are the tokens, shared as one-hot vectors; public ones are positions."""
    if isinstance(indices, Tensor):
        return build.emit("lookup", [table, indices], shape)
    _only(indices == build.tokens, "its secret indices are not the tokens")
    return build.emit("embedding", [table, build.onehot], shape)


@aten("addmm")
def addmm(
    build: Builder, shape: Shape, bias: Secret, x: Secret, weight: Secret, *, beta: float = 1, alpha: float = 1
) -> Secret:
    _only(beta == alpha == 1, "it scales its summands")
    return build.emit("linear", [x, weight, bias], shape)


@aten("linear")
def linear(build: Builder, shape: Shape, x: Secret, weight: Secret, bias: Secret | None = None) -> Secret:
    """torch keeps the weight as (n, k)."""
    turned = transpose(build, (weight.shape[1], weight.shape[0]), weight)
    return build.emit("linear", [x, turned, *([bias] if bias else [])], shape)


@aten("matmul", "bmm", "mm")
def matmul(build: Builder, shape: Shape, a: Secret, b: Secret) -> Secret:
    _only(isinstance(a, Secret) and isinstance(b, Secret), "one factor is public")
    return build.emit("matmul", [a, b], shape)


@aten("mul")
def multiply(build: Builder, shape: Shape, a: Any, b: Any) -> Secret:
    if isinstance(a, Secret) and isinstance(b, Secret):
        return build.emit("multiply", [a, b], shape)
    x, factor = (a, b) if isinstance(a, Secret) else (b, a)
    return _scale(build, shape, x, factor)


@aten("div")
def divide(build: Builder, shape: Shape, x: Any, divisor: Any, *, rounding_mode: str | None = None) -> Secret:
    _only(isinstance(x, Secret) and not isinstance(divisor, Secret), "the divisor is secret")
    _only(rounding_mode is None, "it rounds")
    _only(bool(divisor != 0), "the divisor is zero")
    return _scale(build, shape, x, 1 / divisor)


def _scale(build: Builder, shape: Shape, x: Secret, factor: float | Tensor) -> Secret:
    _only(not isinstance(factor, Tensor) or factor.numel() == 1, "the public factor is not a single number")
    return build.emit("scale", [x], shape, factor=float(factor))


@aten("add")
def add(build: Builder, shape: Shape, a: Any, b: Any, *, alpha: float = 1) -> Secret | Masked:
    _only(alpha == 1, "it scales its summand")
    x, other = (a, b) if isinstance(a, Secret) else (b, a)
    if isinstance(other, Secret):
        return build.emit("add", [x, other], shape)
    summand = torch.as_tensor(other, dtype=torch.float32)
    allowed = summand > MASKED_BELOW
    rest = torch.where(allowed, summand, 0.0)
    if bool(rest.any()):
        x = build.emit("add", [x, rest], shape)
    return x if bool(allowed.all()) else Masked(x, allowed)


@aten("softmax", "_softmax")
def softmax(build: Builder, shape: Shape, x: Secret | Masked, dim: int, *_: Any) -> Secret:
    _only(dim in (-1, len(shape) - 1), "it is not over the last dimension")
    operands: list[Secret | Tensor] = [x.scores, x.allowed] if isinstance(x, Masked) else [x]
    return build.emit("softmax", operands, shape)


@aten("layer_norm")
def layernorm(
    build: Builder,
    shape: Shape,
    x: Secret,
    dims: list[int],
    gamma: Secret | None = None,
    beta: Secret | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Secret:
    _only(len(dims) == 1, "it normalises more than the last dimension")
    affine = [weight for weight in (gamma, beta) if weight is not None]
    return build.emit("layernorm", [x, *affine], shape, eps=eps)


@aten("gelu")
def gelu(build: Builder, shape: Shape, x: Secret, *, approximate: str = "none") -> Secret:
    return build.emit("gelu", [x], shape, approximate=approximate)


@aten("relu")
def relu(build: Builder, shape: Shape, x: Secret) -> Secret:
    return build.emit("relu", [x], shape)
