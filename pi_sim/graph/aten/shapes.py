"""ATen operations that rearrange, copy or relabel elements: none of them communicates."""

import math
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.aten import require, translates
from pi_sim.graph.builder import Builder, MaskedScores, Secret, Tokens
from pi_sim.graph.ops import Shape


@translates("alias", "contiguous", "clone", "detach", "lift_fresh_copy")
def identity(build: Builder, shape: Shape, x: Secret, *, memory_format: Any = None) -> Secret:
    return x


@translates("to")
def cast(build: Builder, shape: Shape, x: Secret, *args: Any, **kwargs: Any) -> Secret:
    """Casts between floating types, or of tokens between integer types, change nothing: the ring has one type."""
    types = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)]
    if isinstance(x, Tokens):
        require(not any(dtype.is_floating_point for dtype in types), "tokens may only be embedded")
    else:
        require(all(dtype.is_floating_point for dtype in types), "it casts to a type that is not floating")
    return x


@translates("dropout")
def dropout(build: Builder, shape: Shape, x: Secret, p: float, train: bool) -> Secret:
    require(not train, "the model is in training mode")
    return x


@translates("_assert_tensor_metadata")
def drop_assertion(build: Builder, shape: Shape, x: Secret, *_: Any, **__: Any) -> None:
    return None


@translates("view", "reshape", "_unsafe_view")
def view_scores(build: Builder, shape: Shape, x: Secret | MaskedScores, *_: Any) -> Secret | MaskedScores:
    """View; a mask that all rows of scores share is viewed with them."""
    if isinstance(x, Secret):
        return view(build, shape, x)
    leading, last = x.allowed.shape[:-2], shape[-2:]
    if x.scores.shape[-2:] == last and set(leading) <= {1}:
        allowed = x.allowed.reshape((1,) * (len(shape) - 2) + tuple(x.allowed.shape[-2:]))
    else:
        allowed = x.allowed.expand(x.scores.shape).reshape(shape)
    return MaskedScores(view(build, shape, x.scores), allowed)


@translates("unsqueeze", "squeeze", "flatten", "unflatten")
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
    """Permute dimensions by transposing two at a time."""
    order = list(range(len(dims)))
    for target, dim in enumerate(dims):
        current = order.index(dim % len(dims))
        if current != target:
            order[target], order[current] = order[current], order[target]
            swapped = list(x.shape)
            swapped[target], swapped[current] = swapped[current], swapped[target]
            x = transpose(build, tuple(swapped), x, target, current)
    return x


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
    """Slice as Python does: ends may be missing, negative, or beyond the last element."""
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
    """Select public indices of one dimension, or of several side by side, in their order."""
    chosen = [dim for dim, rows in enumerate(indices) if rows is not None]
    is_public = all(isinstance(indices[dim], Tensor) and indices[dim].dtype == torch.long for dim in chosen)
    require(is_public and chosen == list(range(chosen[0], chosen[-1] + 1)), "it is not by public indices side by side")
    first, sizes = chosen[0], x.shape[chosen[0] : chosen[-1] + 1]
    flat = torch.zeros((), dtype=torch.long)
    for dim, size in zip(chosen, sizes, strict=True):
        flat = flat * size + indices[dim] % size
    rest = x.shape[chosen[-1] + 1 :]
    x = view(build, (*x.shape[:first], math.prod(sizes), *rest), x)
    rows = [_emit_slice(build, x, first, start, start + 1) for start in flat.flatten().tolist()]
    return view(build, shape, concat(build, (*x.shape[:first], len(rows), *rest), rows, first))


@translates("unbind")
def unbind(build: Builder, shape: Shape, x: Secret, dim: int = 0) -> list[Secret]:
    dim %= len(x.shape)
    rest = (*x.shape[:dim], *x.shape[dim + 1 :])
    return [select(build, rest, x, dim, index) for index in range(x.shape[dim])]


@translates("split", "split_with_sizes")
def split(build: Builder, shape: Shape, x: Secret, sizes: int | list[int], dim: int = 0) -> list[Secret]:
    dim, total = dim % len(x.shape), x.shape[dim]
    ends = list(accumulate(sizes)) if isinstance(sizes, list) else [*range(sizes, total, sizes), total]
    return [_emit_slice(build, x, dim, start, stop) for start, stop in pairwise([0, *ends])]


@translates("chunk")
def chunk(build: Builder, shape: Shape, x: Secret, chunks: int, dim: int = 0) -> list[Secret]:
    return split(build, shape, x, -(-x.shape[dim] // chunks), dim)


def _emit_slice(build: Builder, x: Secret, dim: int, start: int, stop: int) -> Secret:
    shape = (*x.shape[:dim], stop - start, *x.shape[dim + 1 :])
    require(shape == x.shape or not isinstance(x, Tokens), "tokens may only be embedded")
    return x if shape == x.shape else build.emit("slice", [x], shape, dim=dim, start=start, stop=stop)


@translates("cat", "concat")
def concat(build: Builder, shape: Shape, parts: list[Any], dim: int = 0) -> Secret:
    """Concatenate secrets; empty public parts, such as a cache before its first token, are left out."""
    nonempty = [part for part in parts if isinstance(part, Secret) or part.numel()]
    require(all(isinstance(part, Secret) for part in nonempty), "one part is public")
    return nonempty[0] if len(nonempty) == 1 else build.emit("concat", nonempty, shape, dim=dim % len(shape))


@translates("stack")
def stack(build: Builder, shape: Shape, parts: list[Any], dim: int = 0) -> Secret:
    require(all(isinstance(part, Secret) for part in parts), "one part is public")
    dim %= len(shape)
    single = (*shape[:dim], 1, *shape[dim + 1 :])
    return concat(build, shape, [view(build, single, part) for part in parts], dim)
