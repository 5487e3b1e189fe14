"""Products of two secrets, with as many bits of fraction as both factors have together: truncation is the caller's."""

# MERGED: Weights that stay put: opened under a mask once in a session, so that each call opens its input alone.

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlations import PRODUCTS, Correlation, SquarePair, TensorSpec, Triple
from pi_sim.mpc.runtime import Runtime


def multiply(rt: Runtime, a: Tensor, b: Tensor, operation: str = "multiply") -> Tensor:
    """a * b, broadcast, or a @ b.

    1. Take shares of random A and B and of their product from the dealer.
    2. Open a - A and b - B (1 round, 8 (|a| + |b|) bytes).
    3. a b = (a - A) (b - B) + (a - A) B + A (b - B) + A B.

    8 |a b| bytes offline. Source: Beaver (CRYPTO 1991).
    """
    multiply = PRODUCTS[operation]
    first, second, both = rt.correlated(Triple(operation, tuple(a.shape), tuple(b.shape)))
    x, y = rt.reveal(a - first, b - second)
    mine = multiply(x, second + y) if rt.rank == 0 else multiply(x, second)
    return mine + multiply(first, y) + both


def square(rt: Runtime, a: Tensor) -> Tensor:
    """a * a: 1 round, 8 bytes and 8 offline per element."""
    random, both = rt.correlated(SquarePair(tuple(a.shape)))
    (x,) = rt.reveal(a - random)
    return 2 * x * random + both + (x * x if rt.rank == 0 else 0)


@dataclass(frozen=True)
class OpenedWeight:
    """A shared matrix W: the public W - B, the dealer's number for B, and B's share, to which party 0 adds W - B."""

    masked: Tensor
    share: Tensor
    mask_id: int


@dataclass(frozen=True)
class FixedOperandTriple(Correlation):
    """A fresh A, and A @ B for a B that the dealer kept."""

    first: Shape
    columns: int

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(self.first),)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec((*self.first[:-1], self.columns)),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (torch.matmul(*values),)


def open_weight_shares(rt: Runtime, shares: list[Tensor]) -> list[OpenedWeight]:
    """Open every matrix under a mask of its own: 1 round for all, 8 bytes per element."""
    kept = [rt.persistent_mask(TensorSpec(tuple(share.shape))) for share in shares]
    opened = rt.reveal(*(share - mask for share, (_, mask) in zip(shares, kept, strict=True)))
    first = rt.rank == 0
    return [
        OpenedWeight(masked, mask + masked if first else mask, number)
        for masked, (number, mask) in zip(opened, kept, strict=True)
    ]


def multiply_by_weight(rt: Runtime, x: Tensor, weight: OpenedWeight) -> Tensor:
    """x @ W, with the bits of fraction of both.

    1. Take shares of a fresh A and of A @ B from the dealer.
    2. Open x - A (1 round, 8 |x| bytes).
    3. x W = (x - A) (W - B) + (x - A) B + A (W - B) + A B.

    8 |x W| bytes offline. B hides W alone, and no A is used twice.
    """
    first, both = rt.correlated(FixedOperandTriple(tuple(x.shape), weight.masked.shape[-1]), weight.mask_id)
    (opened,) = rt.reveal(x - first)
    return opened @ weight.share + first @ weight.masked + both
