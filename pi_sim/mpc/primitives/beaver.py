"""Products of two secrets, with as many bits of fraction as both factors have together: truncation is the caller's."""

# MERGED: Weights that stay put: opened under a mask once in a session, so that each call opens its input alone.

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import runtime
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec

Operation = Callable[[Tensor, Tensor], Tensor]
OPERATIONS: dict[str, Operation] = {"multiply": torch.mul, "matmul": torch.matmul}


@dataclass(frozen=True)
class Triple(Correlation):
    """A, B, and their product."""

    operation: str
    first: Shape
    second: Shape

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return TensorSpec(self.first), TensorSpec(self.second)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(_product_shape(self.operation, self.first, self.second)),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (OPERATIONS[self.operation](*values),)


@dataclass(frozen=True)
class SquarePair(Correlation):
    """R, and its square."""

    shape: Shape

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(self.shape),)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(self.shape),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (values[0] * values[0],)


def multiply(a: Tensor, b: Tensor, operation: str = "multiply") -> Tensor:
    """a * b, broadcast, or a @ b.

    1. Take shares of random A and B and of their product from the dealer.
    2. Open a - A and b - B (1 round, 8 (|a| + |b|) bytes).
    3. a b = (a - A) (b - B) + (a - A) B + A (b - B) + A B.

    8 |a b| bytes offline. Source: Beaver (CRYPTO 1991).
    """
    multiply = OPERATIONS[operation]
    first, second, both = runtime.correlated(Triple(operation, tuple(a.shape), tuple(b.shape)))
    x, y = runtime.reveal(a - first, b - second)
    mine = multiply(x, second + y) if runtime.rank() == 0 else multiply(x, second)
    return mine + multiply(first, y) + both


def square(a: Tensor) -> Tensor:
    """a * a: 1 round, 8 bytes and 8 offline per element."""
    random, both = runtime.correlated(SquarePair(tuple(a.shape)))
    (x,) = runtime.reveal(a - random)
    return 2 * x * random + both + (x * x if runtime.rank() == 0 else 0)


def _product_shape(operation: str, first: Shape, second: Shape) -> Shape:
    """The product's shape, found without tensors: a phantom counts what is done to these."""
    if operation == "multiply":
        return np.broadcast_shapes(first, second)
    return (*np.broadcast_shapes(first[:-2], second[:-2]), *first[-2:-1], second[-1])


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
    kept = [runtime.persistent_mask(TensorSpec(tuple(share.shape))) for share in shares]
    opened = runtime.reveal(*(share - mask for share, (_, mask) in zip(shares, kept, strict=True)))
    first = runtime.rank() == 0
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
    first, both = runtime.correlated(FixedOperandTriple(tuple(x.shape), weight.masked.shape[-1]), weight.mask_id)
    (opened,) = runtime.reveal(x - first)
    return opened @ weight.share + first @ weight.masked + both
