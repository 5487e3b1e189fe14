"""What CrypTen asks of a dealer besides products and squares: conjunctions, and bits in both sharings."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec

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
