"""What each party does with its own shares alone: 0 rounds, 0 bytes, nothing from the dealer."""

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc.kernels.registry import FIXED, kernel


def on_share(x: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The shared tensor whose share is `function` of x's: for maps that commute with the sum of shares.

    CrypTen reads its configuration whenever an attribute of its tensors is asked for; this goes around that.
    """
    fields = object.__getattribute__(x, "__dict__")
    held = copy(fields["_tensor"])
    held.share = function(held.share)
    result = object.__new__(type(x))
    object.__getattribute__(result, "__dict__").update(fields, _tensor=held)
    return result


@kernel("view", FIXED)
def view(x: Any, *, shape: tuple[int, ...]) -> Any:
    """The same elements in another shape."""
    return on_share(x, lambda share: share.reshape(shape))


@kernel("expand", FIXED)
def expand(x: Any, *, shape: tuple[int, ...]) -> Any:
    """Dimensions of one element repeated."""
    return on_share(x, lambda share: share.expand(shape))


@kernel("transpose", FIXED)
def transpose(x: Any, *, dim0: int, dim1: int) -> Any:
    """Two dimensions exchanged."""
    return on_share(x, lambda share: share.transpose(dim0, dim1))


@kernel("slice", FIXED)
def narrow(x: Any, *, dim: int, start: int, stop: int) -> Any:
    """The elements start <= i < stop of a dimension."""
    return on_share(x, lambda share: share.narrow(dim, start, stop - start))


@kernel("concat", FIXED)
def concat(*parts: Any, dim: int) -> Any:
    """Tensors one after another along a dimension."""
    return on_share(parts[0], lambda _: torch.cat([part.share for part in parts], dim))


@kernel("lookup", FIXED)
def lookup(table: Any, indices: Tensor) -> Any:
    """Rows of a secret table (V, d) at public indices (...): (..., d)."""
    return on_share(table, lambda share: share[indices])


@kernel("add", FIXED)
def add(a: Any, b: Any) -> Any:
    """The sum of two secrets, or of a secret and a public tensor, which party 0 adds."""
    return a + b


@kernel("neg", FIXED)
def neg(x: Any) -> Any:
    """Exact, unlike a multiple of -1, which would be truncated."""
    return on_share(x, torch.neg)


@kernel("sum", FIXED)
def total(x: Any, *, dim: int) -> Any:
    """The sum over a dimension, which remains with one element."""
    return on_share(x, lambda share: share.sum(dim, keepdim=True))


@kernel("mask", FIXED)
def mask(x: Any, allowed: Tensor) -> Any:
    """Shares multiplied by the integers 0 and 1: exact, so nothing is truncated."""
    return on_share(x, lambda share: share * allowed.long())
