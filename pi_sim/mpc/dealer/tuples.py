"""What CrypTen asks of a dealer besides products and squares: conjunctions, and bits in both sharings."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlation import Correlation, Part

WORD = 64


@dataclass(frozen=True)
class Conjunction(Correlation):
    """A, B and A & B, broadcast, in words of 64 bits shared by exclusive or."""

    first: Shape
    second: Shape

    @property
    def random_parts(self) -> tuple[Part, ...]:
        return Part(self.first, WORD), Part(self.second, WORD)

    @property
    def dependent_parts(self) -> tuple[Part, ...]:
        return (Part(np.broadcast_shapes(self.first, self.second), WORD),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (values[0] & values[1],)


@dataclass(frozen=True)
class Bit(Correlation):
    """A random bit shared by exclusive or, and the same bit shared as a sum."""

    shape: Shape

    @property
    def random_parts(self) -> tuple[Part, ...]:
        return (Part(self.shape, 1),)

    @property
    def dependent_parts(self) -> tuple[Part, ...]:
        return (Part(self.shape),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return values
