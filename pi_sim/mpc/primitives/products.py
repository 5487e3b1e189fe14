"""Products of two secrets, with as many bits of fraction as both factors have together: truncation is the caller's."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec

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
    first, second, both = session.correlated(Triple(operation, tuple(a.shape), tuple(b.shape)))
    x, y = session.reveal(a - first, b - second)
    mine = multiply(x, second + y) if session.rank() == 0 else multiply(x, second)
    return mine + multiply(first, y) + both


def square(a: Tensor) -> Tensor:
    """a * a: 1 round, 8 bytes and 8 offline per element."""
    random, both = session.correlated(SquarePair(tuple(a.shape)))
    (x,) = session.reveal(a - random)
    return 2 * x * random + both + (x * x if session.rank() == 0 else 0)


def _product_shape(operation: str, first: Shape, second: Shape) -> Shape:
    """The product's shape, found without tensors: a phantom counts what is done to these."""
    if operation == "multiply":
        return np.broadcast_shapes(first, second)
    return (*np.broadcast_shapes(first[:-2], second[:-2]), *first[-2:-1], second[-1])
