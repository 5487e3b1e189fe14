"""Correlated randomness: what a dealer draws at random, and what follows from it."""

# MERGED: What CrypTen asks of a dealer besides products and squares: conjunctions, and bits in both sharings.

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pi_sim.graph.ops import Shape


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a correlation: shared as a sum in the ring of 64-bit words, or, with `bits`, by exclusive or."""

    shape: Shape
    bits: int | None = None
    dtype: torch.dtype = torch.int64

    @property
    def mask(self) -> int | None:
        """The bits of a word that are random, None for all of them."""
        return None if self.bits is None or self.bits == 8 * self.dtype.itemsize else (1 << self.bits) - 1

    @property
    def bytes(self) -> int:
        """Of one share of it."""
        return math.prod(self.shape) * self.dtype.itemsize

    def split(self, value: Tensor, other: Tensor) -> Tensor:
        """The share that makes up `value` with the other one, in the other one's place."""
        return (torch.sub if self.bits is None else torch.bitwise_xor)(value, other, out=other)

    def join(self, one: Tensor, other: Tensor) -> Tensor:
        """The value of two shares, in the other one's place."""
        return (torch.add if self.bits is None else torch.bitwise_xor)(one, other, out=other)


class Correlation(ABC):
    """Uniformly random parts, and parts derived from their values; two parties get a share of each."""

    @property
    @abstractmethod
    def random_parts(self) -> tuple[TensorSpec, ...]:
        """Uniformly random: both parties expand their shares from seeds."""

    @property
    @abstractmethod
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        """What follows: party 1 expands its share from a seed, party 0's must be sent."""

    @abstractmethod
    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The values of the derived parts from those of the drawn ones: what the dealer computes."""


WORD_BITS = 64


@dataclass(frozen=True)
class AndTriple(Correlation):
    """A, B and A & B, broadcast, in words of 64 bits shared by exclusive or."""

    first: Shape
    second: Shape

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return TensorSpec(self.first, WORD_BITS), TensorSpec(self.second, WORD_BITS)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(np.broadcast_shapes(self.first, self.second), WORD_BITS),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (values[0] & values[1],)


@dataclass(frozen=True)
class RandomBit(Correlation):
    """A random bit shared by exclusive or, and the same bit shared as a sum."""

    shape: Shape

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(self.shape, 1),)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(self.shape),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return values


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"multiply": torch.mul, "matmul": torch.matmul}
"""The operations that triples are dealt for."""


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
        return (PRODUCTS[self.operation](*values),)


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


def _product_shape(operation: str, first: Shape, second: Shape) -> Shape:
    """The product's shape, found without tensors: a phantom counts what is done to these."""
    if operation == "multiply":
        return np.broadcast_shapes(first, second)
    return (*np.broadcast_shapes(first[:-2], second[:-2]), *first[-2:-1], second[-1])
