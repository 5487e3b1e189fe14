"""Calls that rearrange, copy or relabel elements."""

from typing import Any

import torch

from pi_sim.graph.aten.registry import aten, only
from pi_sim.graph.builder import Builder, Secret
from pi_sim.graph.ops import Shape


@aten("alias", "contiguous", "clone", "detach")
def same(build: Builder, shape: Shape, x: Secret, *, memory_format: Any = None) -> Secret:
    return x


@aten("to")
def to(build: Builder, shape: Shape, x: Secret, *args: Any, **kwargs: Any) -> Secret:
    """The ring has one type: a cast between floating types is none."""
    types = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)]
    only(all(each.is_floating_point for each in types), "it casts to a type that is not floating")
    return x


@aten("dropout")
def dropout(build: Builder, shape: Shape, x: Secret, p: float, train: bool) -> Secret:
    only(not train, "the model is in training mode")
    return x


@aten("_assert_tensor_metadata")
def assertion(build: Builder, shape: Shape, x: Secret, *_: Any, **__: Any) -> None:
    return None


@aten("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "flatten")
def view(build: Builder, shape: Shape, x: Secret, *_: Any) -> Secret:
    return x if shape == x.shape else build.emit("view", [x], shape, shape=shape)


@aten("expand")
def expand(build: Builder, shape: Shape, x: Secret, *_: Any) -> Secret:
    return x if shape == x.shape else build.emit("expand", [x], shape, shape=shape)


@aten("transpose", "t")
def transpose(build: Builder, shape: Shape, x: Secret, dim0: int = 0, dim1: int = 1) -> Secret:
    rank = len(x.shape)
    return build.emit("transpose", [x], shape, dim0=dim0 % rank, dim1=dim1 % rank)


@aten("slice")
def narrow(
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
    only(step == 1, "it skips elements")
    return _slice(build, x, dim, first, last)


@aten("split")
def split(build: Builder, shape: Shape, x: Secret, size: int, dim: int = 0) -> list[Secret]:
    dim %= len(x.shape)
    return [_slice(build, x, dim, at, min(at + size, x.shape[dim])) for at in range(0, x.shape[dim], size)]


@aten("chunk")
def chunk(build: Builder, shape: Shape, x: Secret, chunks: int, dim: int = 0) -> list[Secret]:
    return split(build, shape, x, -(-x.shape[dim] // chunks), dim)


def _slice(build: Builder, x: Secret, dim: int, start: int, stop: int) -> Secret:
    shape = (*x.shape[:dim], stop - start, *x.shape[dim + 1 :])
    return x if shape == x.shape else build.emit("slice", [x], shape, dim=dim, start=start, stop=stop)


@aten("cat")
def concat(build: Builder, shape: Shape, parts: list[Any], dim: int = 0) -> Secret:
    only(all(isinstance(part, Secret) for part in parts), "one part is public")
    return build.emit("concat", parts, shape, dim=dim % len(shape))
