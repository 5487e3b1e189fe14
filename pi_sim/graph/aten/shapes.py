"""Calls that rearrange, copy or relabel elements."""

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.aten.registry import require, translates
from pi_sim.graph.builder import Builder, Secret, Tokens
from pi_sim.graph.ops import Shape


@translates("alias", "contiguous", "clone", "detach", "lift_fresh_copy")
def identity(build: Builder, shape: Shape, x: Secret, *, memory_format: Any = None) -> Secret:
    return x


@translates("to")
def cast(build: Builder, shape: Shape, x: Secret, *args: Any, **kwargs: Any) -> Secret:
    """The ring has one type: a cast between floating types is none, nor is one between integers for tokens."""
    types = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)]
    if isinstance(x, Tokens):
        require(not any(each.is_floating_point for each in types), "tokens may only be embedded")
    else:
        require(all(each.is_floating_point for each in types), "it casts to a type that is not floating")
    return x


@translates("dropout")
def dropout(build: Builder, shape: Shape, x: Secret, p: float, train: bool) -> Secret:
    require(not train, "the model is in training mode")
    return x


@translates("_assert_tensor_metadata")
def drop_assertion(build: Builder, shape: Shape, x: Secret, *_: Any, **__: Any) -> None:
    return None


@translates("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "flatten", "unflatten")
def view(build: Builder, shape: Shape, x: Secret, *_: Any) -> Secret:
    require(shape == x.shape or not isinstance(x, Tokens), "tokens may only be embedded")
    return x if shape == x.shape else build.emit("view", [x], shape, shape=shape)


@translates("expand")
def expand(build: Builder, shape: Shape, x: Secret, *_: Any) -> Secret:
    return x if shape == x.shape else build.emit("expand", [x], shape, shape=shape)


@translates("transpose", "t")
def transpose(build: Builder, shape: Shape, x: Secret, dim0: int = 0, dim1: int = 1) -> Secret:
    rank = len(x.shape)
    return build.emit("transpose", [x], shape, dim0=dim0 % rank, dim1=dim1 % rank)


@translates("permute")
def permute(build: Builder, shape: Shape, x: Secret, dims: list[int]) -> Secret:
    """One exchange of two dimensions after another."""
    wanted, order = [dim % len(dims) for dim in dims], list(range(len(dims)))
    for at, dim in enumerate(wanted):
        found = order.index(dim)
        if found != at:
            order[at], order[found] = order[found], order[at]
            x = _swap_dims(build, x, at, found)
    return x


def _swap_dims(build: Builder, x: Secret, one: int, other: int) -> Secret:
    turned = list(x.shape)
    turned[one], turned[other] = turned[other], turned[one]
    return transpose(build, tuple(turned), x, one, other)


@translates("slice")
def slice_dim(
    build: Builder,
    shape: Shape,
    x: Secret,
    dim: int = 0,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
) -> Secret:
    """Python's slicing: ends may be missing, negative, or beyond the last element."""
    dim %= len(x.shape)
    first, last, _ = slice(start, stop).indices(x.shape[dim])
    if step == 1:
        return _emit_slice(build, x, dim, first, last)
    require(x.shape[dim] % step == 0 and first < step and last == x.shape[dim], "it skips elements unevenly")
    grouped = view(build, (*x.shape[:dim], x.shape[dim] // step, step, *x.shape[dim + 1 :]), x)
    return select(build, shape, grouped, dim + 1, first)


@translates("narrow")
def narrow_by_length(build: Builder, shape: Shape, x: Secret, dim: int, start: int, length: int) -> Secret:
    return slice_dim(build, shape, x, dim, start, start + length)


@translates("select")
def select(build: Builder, shape: Shape, x: Secret, dim: int, index: int) -> Secret:
    dim, index = dim % len(x.shape), index % x.shape[dim]
    return view(build, shape, _emit_slice(build, x, dim, index, index + 1))


@translates("index")
def index(build: Builder, shape: Shape, x: Secret, indices: list[Any]) -> Secret:
    """Public places of one dimension, in their order."""
    chosen = [(dim, places) for dim, places in enumerate(indices) if places is not None]
    require(len(chosen) == 1 and isinstance(chosen[0][1], Tensor), "it is not by public places of one dimension")
    dim, places = chosen[0]
    require(places.dim() == 1 and places.dtype == torch.long, "it is not by public places of one dimension")
    return concat(build, shape, [_emit_slice(build, x, dim, int(at), int(at) + 1) for at in places % x.shape[dim]], dim)


@translates("unbind")
def unbind(build: Builder, shape: Shape, x: Secret, dim: int = 0) -> list[Secret]:
    dim %= len(x.shape)
    rest = (*x.shape[:dim], *x.shape[dim + 1 :])
    return [select(build, rest, x, dim, index) for index in range(x.shape[dim])]


@translates("split", "split_with_sizes")
def split(build: Builder, shape: Shape, x: Secret, sizes: int | list[int], dim: int = 0) -> list[Secret]:
    dim %= len(x.shape)
    whole = x.shape[dim]
    ends = list(accumulate(sizes)) if isinstance(sizes, list) else [*range(sizes, whole, sizes), whole]
    return [_emit_slice(build, x, dim, start, stop) for start, stop in pairwise([0, *ends])]


@translates("chunk")
def chunk(build: Builder, shape: Shape, x: Secret, chunks: int, dim: int = 0) -> list[Secret]:
    return split(build, shape, x, -(-x.shape[dim] // chunks), dim)


def _emit_slice(build: Builder, x: Secret, dim: int, start: int, stop: int) -> Secret:
    shape = (*x.shape[:dim], stop - start, *x.shape[dim + 1 :])
    return x if shape == x.shape else build.emit("slice", [x], shape, dim=dim, start=start, stop=stop)


@translates("cat", "concat")
def concat(build: Builder, shape: Shape, parts: list[Any], dim: int = 0) -> Secret:
    """An empty public part, such as a cache before its first token, adds nothing."""
    full = [part for part in parts if isinstance(part, Secret) or part.numel()]
    require(all(isinstance(part, Secret) for part in full), "one part is public")
    return full[0] if len(full) == 1 else build.emit("concat", full, shape, dim=dim % len(shape))


@translates("stack")
def stack(build: Builder, shape: Shape, parts: list[Any], dim: int = 0) -> Secret:
    require(all(isinstance(part, Secret) for part in parts), "one part is public")
    dim %= len(shape)
    single = (*shape[:dim], 1, *shape[dim + 1 :])
    return concat(build, shape, [view(build, single, part) for part in parts], dim)
