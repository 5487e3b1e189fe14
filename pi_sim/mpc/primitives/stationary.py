"""Weights that stay put: opened under a mask once in a session, so that each call opens its input alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec


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


def open_weight_shares(shares: list[Tensor]) -> list[OpenedWeight]:
    """Open every matrix under a mask of its own: 1 round for all, 8 bytes per element."""
    kept = [session.persistent_mask(TensorSpec(tuple(share.shape))) for share in shares]
    opened = session.reveal(*(share - mask for share, (_, mask) in zip(shares, kept, strict=True)))
    first = session.rank() == 0
    return [
        OpenedWeight(masked, mask + masked if first else mask, number)
        for masked, (number, mask) in zip(opened, kept, strict=True)
    ]


def multiply_by_weight(x: Tensor, weight: OpenedWeight) -> Tensor:
    """x @ W, with the bits of fraction of both.

    1. Take shares of a fresh A and of A @ B from the dealer.
    2. Open x - A (1 round, 8 |x| bytes).
    3. x W = (x - A) (W - B) + (x - A) B + A (W - B) + A B.

    8 |x W| bytes offline. B hides W alone, and no A is used twice.
    """
    first, both = session.correlated(FixedOperandTriple(tuple(x.shape), weight.masked.shape[-1]), weight.mask_id)
    (opened,) = session.reveal(x - first)
    return opened @ weight.share + first @ weight.masked + both
