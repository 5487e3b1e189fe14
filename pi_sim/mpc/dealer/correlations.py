"""Correlations: tensors that a dealer draws at random, and tensors that are computed from them.

Those that CrypTen requests stand here: Beaver triples, squares, AND triples, and bits in both sharings. Those of our
own kernels stand beside the primitives that use them.
"""

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
    """One tensor of a correlation, in additive shares in its ring, or, with `bits`, in XOR shares."""

    shape: Shape
    bits: int | None = None
    dtype: torch.dtype = torch.int64

    @property
    def mask(self) -> int | None:
        """Mask of the random bits of a word, None if all are random."""
        return None if self.bits is None or self.bits == 8 * self.dtype.itemsize else (1 << self.bits) - 1

    @property
    def bytes(self) -> int:
        """Bytes of one share."""
        return math.prod(self.shape) * self.dtype.itemsize

    def split(self, value: Tensor, peer_share: Tensor) -> Tensor:
        """Return the share that completes `peer_share` to `value`; it overwrites `peer_share`."""
        return (torch.sub if self.bits is None else torch.bitwise_xor)(value, peer_share, out=peer_share)

    def join(self, share: Tensor, peer_share: Tensor) -> Tensor:
        """Return the value of two shares; it overwrites `peer_share`."""
        return (torch.add if self.bits is None else torch.bitwise_xor)(share, peer_share, out=peer_share)


class Correlation(ABC):
    """Uniformly random parts, and parts that depend on their values; two parties get a share of each."""

    @property
    @abstractmethod
    def random_parts(self) -> tuple[TensorSpec, ...]:
        """Specs of the uniformly random parts: both parties expand their shares from seeds."""

    @property
    @abstractmethod
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        """Specs of the dependent parts: party 1 expands its share from a seed, party 0's must be sent."""

    @abstractmethod
    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the values of the dependent parts from those of the random parts, as the dealer does."""


WORD_BITS = 64


@dataclass(frozen=True)
class AndTriple(Correlation):
    """A, B and A & B, broadcast, in XOR shares of 64-bit words."""

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
    """A random bit in XOR shares, and in additive shares."""

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
"""Operations of Beaver triples."""


@dataclass(frozen=True)
class Triple(Correlation):
    """A Beaver triple: A, B and their product."""

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
    """R and its square."""

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
    """Return the shape of a product, without tensors: the dry run counts operations on these."""
    if operation == "multiply":
        return np.broadcast_shapes(first, second)
    return (*np.broadcast_shapes(first[:-2], second[:-2]), *first[-2:-1], second[-1])
