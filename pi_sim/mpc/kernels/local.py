"""What each party does with its own shares alone: 0 rounds, 0 bytes, nothing from the dealer."""

# MERGED: The logits are opened to the client alone.

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.registry import UNIVERSAL, kernel
from pi_sim.mpc.runtime import Runtime


def map_share(x: Shared, function: Callable[[Tensor], Tensor]) -> Shared:
    """The shared tensor whose share is `function` of x's: for maps that commute with the sum of shares.

    CrypTen reads its configuration whenever an attribute of its tensors is asked for; this goes around that.
    """
    fields = object.__getattribute__(x, "__dict__")
    held = copy(fields["_tensor"])
    held.share = function(held.share)
    result = object.__new__(type(x))
    object.__getattribute__(result, "__dict__").update(fields, _tensor=held)
    return result


@kernel("view", UNIVERSAL)
def view(rt: Runtime, x: Shared, *, shape: tuple[int, ...]) -> Shared:
    """The same elements in another shape."""
    return map_share(x, lambda share: share.reshape(shape))


@kernel("expand", UNIVERSAL)
def expand(rt: Runtime, x: Shared, *, shape: tuple[int, ...]) -> Shared:
    """Dimensions of one element repeated."""
    return map_share(x, lambda share: share.expand(shape))


@kernel("transpose", UNIVERSAL)
def transpose(rt: Runtime, x: Shared, *, dim0: int, dim1: int) -> Shared:
    """Two dimensions exchanged."""
    return map_share(x, lambda share: share.transpose(dim0, dim1))


@kernel("slice", UNIVERSAL)
def narrow(rt: Runtime, x: Shared, *, dim: int, start: int, stop: int) -> Shared:
    """The elements start <= i < stop of a dimension."""
    return map_share(x, lambda share: share.narrow(dim, start, stop - start))


@kernel("concat", UNIVERSAL)
def concat(rt: Runtime, *parts: Shared, dim: int) -> Shared:
    """Tensors one after another along a dimension."""
    return map_share(parts[0], lambda _: torch.cat([part.share for part in parts], dim))


@kernel("lookup", UNIVERSAL)
def lookup(rt: Runtime, table: Shared, indices: Tensor) -> Shared:
    """Rows of a secret table (V, d) at public indices (...): (..., d)."""
    return map_share(table, lambda share: share[indices])


@kernel("add", UNIVERSAL)
def add(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """The sum of two secrets, or of a secret and a public tensor, which party 0 adds."""
    return a + b


@kernel("neg", UNIVERSAL)
def neg(rt: Runtime, x: Shared) -> Shared:
    """Exact, unlike a multiple of -1, which would be truncated."""
    return map_share(x, torch.neg)


@kernel("sum", UNIVERSAL)
def sum_dimension(rt: Runtime, x: Shared, *, dim: int) -> Shared:
    """The sum over a dimension, which remains with one element."""
    return map_share(x, lambda share: share.sum(dim, keepdim=True))


@kernel("mask", UNIVERSAL)
def mask(rt: Runtime, x: Shared, allowed: Tensor) -> Shared:
    """Shares multiplied by the integers 0 and 1: exact, so nothing is truncated."""
    return map_share(x, lambda share: share * allowed.long())


CLIENT = 1
"""Party 0 is the server."""


@kernel("reveal", UNIVERSAL)
def reveal(rt: Runtime, x: Shared) -> Tensor | None:
    """The server sends its share of x: plain values at the client, None at the server. 1 round, 8 |x| bytes.

    Decoded here, because CrypTen's decoder is off by one for some negative numbers just above an integer.
    """
    ring = x.reveal(dst=CLIENT)
    return None if ring is None else ring.double().div(x.encoder.scale).float().cpu()
