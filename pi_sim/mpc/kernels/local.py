"""Local operations, which need neither rounds nor correlations, and the opening of results to the client."""

from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from pi_sim.mpc.backend import Shared
from pi_sim.mpc.kernels.registry import UNIVERSAL, Domain, kernel, magnitude
from pi_sim.mpc.openings import NARROW_BITS
from pi_sim.mpc.primitives.cached import CachedFactor, CachedRows
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.truncation import shift_locally
from pi_sim.mpc.runtime import CLIENT, Runtime


def map_share(x: Shared, function: Callable[[Tensor], Tensor]) -> Shared:
    """Return the shared tensor whose share is `function` of x's share, for maps that commute with the sum of shares.

    CrypTen reads its configuration whenever an attribute of its tensors is accessed; this avoids it.
    """
    fields = object.__getattribute__(x, "__dict__")
    held = copy(fields["_tensor"])
    held.share = function(held.share)
    result = object.__new__(type(x))
    object.__getattribute__(result, "__dict__").update(fields, _tensor=held)
    return result


def with_share(x: Shared, share: Tensor) -> Shared:
    """Return a shared tensor like x with another share."""
    return map_share(x, lambda _: share)


@kernel("view", UNIVERSAL)
def view(rt: Runtime, x: Shared, *, shape: tuple[int, ...]) -> Shared:
    """Return the elements in another shape."""
    return map_share(x, lambda share: share.reshape(shape))


@kernel("expand", UNIVERSAL)
def expand(rt: Runtime, x: Shared, *, shape: tuple[int, ...]) -> Shared:
    """Return x with dimensions of one element repeated."""
    return map_share(x, lambda share: share.expand(shape))


@kernel("transpose", UNIVERSAL)
def transpose(rt: Runtime, x: Shared, *, dim0: int, dim1: int) -> Shared:
    """Return x with two dimensions exchanged."""
    return map_share(x, lambda share: share.transpose(dim0, dim1))


@kernel("slice", UNIVERSAL)
def narrow(rt: Runtime, x: Shared, *, dim: int, start: int, stop: int) -> Shared:
    """Return the elements start <= i < stop of a dimension."""
    return map_share(x, lambda share: share.narrow(dim, start, stop - start))


@kernel("concat", UNIVERSAL)
def concat(rt: Runtime, *parts: Shared, dim: int) -> Shared:
    """Return tensors concatenated along a dimension."""
    return with_share(parts[0], torch.cat([part.share for part in parts], dim))


@kernel("cache", UNIVERSAL)
def cache(rt: Runtime, x: Shared, *, masked: bool = False) -> Shared | CachedFactor:
    """Return x; masked, as the factor of products that open its rows once."""
    return CachedFactor.of_rows([CachedRows(x.share)]) if masked else x


@kernel("lookup", UNIVERSAL)
def lookup(rt: Runtime, table: Shared, indices: Tensor) -> Shared:
    """Return rows of a secret table (V, d) at public indices (...): (..., d)."""
    return map_share(table, lambda share: share[indices])


@kernel("add", UNIVERSAL)
def add(rt: Runtime, a: Shared, b: Shared) -> Shared:
    """Return the sum of two secrets, or of a secret and a public tensor, which party 0 adds."""
    return a + b


@kernel("neg", UNIVERSAL)
def neg(rt: Runtime, x: Shared) -> Shared:
    """Return -x: exact, unlike a multiple by -1, which would be truncated."""
    return map_share(x, torch.neg)


@kernel("sum", UNIVERSAL)
def sum_dimension(rt: Runtime, x: Shared, *, dim: int) -> Shared:
    """Return the sum over a dimension, which remains with one element."""
    return map_share(x, lambda share: share.sum(dim, keepdim=True))


@kernel("mask", UNIVERSAL)
def mask(rt: Runtime, x: Shared, allowed: Tensor) -> Shared:
    """Return shares times the integers 0 and 1: exact, nothing is truncated."""
    return map_share(x, lambda share: share * allowed.long())


ROUNDED_RESULT = Domain("|result|", magnitude, 0, 2.0**15, hard=True)
"""A rounded result has 32 bits, 16 of them for its fraction."""


@kernel("reveal", "whole", rounds=1, bytes=8)
def reveal(rt: Runtime, x: Shared) -> Tensor | None:
    """Return plain values at the client, None at the server, which sends its share of x (1 round).

    Values are decoded here: CrypTen's decoder is off by one for some negative numbers just above an integer.
    """
    ring = x.reveal(dst=CLIENT)
    return None if ring is None else ring.double().div(x.encoder.scale).float().cpu()


@kernel("reveal", "rounded", result=(ROUNDED_RESULT,), operand_bits=lambda op: (NARROW_BITS,), rounds=1, bytes=4)
def reveal_rounded(rt: Runtime, x: Shared) -> Tensor | None:
    """Return plain values at the client, rounded to 16 fraction bits, None at the server.

    1. Round away the fraction bits beyond 16, each party in its own share: local.
    2. The server sends 32-bit words (1 round).

    The fraction of an unrounded product of integers tells the weights exactly, see protocols/README.md.
    """
    surplus = (int(x.encoder.scale) >> FRACTION_BITS).bit_length() - 1
    words = open_rounded(rt, x.share, surplus)
    return None if words is None else words.double().div(2**FRACTION_BITS).float().cpu()


def open_rounded(rt: Runtime, share: Tensor, surplus: int) -> Tensor | None:
    """Return 32-bit words at the client without `surplus` fraction bits, None at the server: 1 round, 4 bytes."""
    rounded = shift_locally(share, surplus) if surplus else share
    (server_share,) = rt.send(CLIENT, rounded, bits=NARROW_BITS)
    return rounded.to(torch.int32) + server_share if rt.rank == CLIENT else None
