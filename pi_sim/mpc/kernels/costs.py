"""Declared costs: what a kernel states beside its code, and the tests of the equation compare with every counter.

Costs add up over the steps of a kernel, as do those of the CrypTen functions below, which depend on its settings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pi_sim.graph.ops import Op


@dataclass(frozen=True)
class KernelCost:
    """Rounds, bytes of the busier direction of every round, and offline bytes.

    Openings of packed bits and of shorter words are padded to 64-bit words: less than 8 bytes each, not included.
    """

    rounds: int = 0
    bytes: int | Fraction = 0
    offline: int | Fraction = 0

    def __add__(self, other: "KernelCost") -> "KernelCost":
        return KernelCost(self.rounds + other.rounds, self.bytes + other.bytes, self.offline + other.offline)

    def parallel(self, count: int) -> "KernelCost":
        """Return the cost of `count` evaluations in the same rounds."""
        return KernelCost(self.rounds, count * self.bytes, count * self.offline)


PRODUCT = KernelCost(rounds=1, bytes=16, offline=8)
"""Beaver product of two secret numbers; CrypTen truncates it locally."""
SQUARE = KernelCost(rounds=1, bytes=8, offline=8)
TRUNCATION = KernelCost(rounds=1, bytes=8, offline=16)
"""Wrap-free truncation, see `pi_sim.mpc.primitives.truncation`."""


@dataclass(frozen=True)
class Dimensions:
    """Public numbers that a cost depends on: shapes and attributes of an operation, settings of CrypTen."""

    op: Op
    settings: Mapping[str, Any]

    @property
    def elements(self) -> int:
        """Elements of the result."""
        return math.prod(self.op.result_shape)

    @property
    def cols(self) -> int:
        """The last dimension of the result."""
        return self.op.result_shape[-1] if self.op.result_shape else 1

    @property
    def rows(self) -> int:
        """Rows of the result."""
        return self.elements // self.cols

    @property
    def operands(self) -> int:
        """Elements of all secret operands, before they are broadcast."""
        return sum(self.operand(index) for index, secret in enumerate(self.op.secret) if secret)

    def operand(self, index: int) -> int:
        """Return the number of elements of an operand, 0 if it is missing."""
        return math.prod(self.op.shapes[index]) if index < len(self.op.shapes) else 0

    def iterations(self, function: str) -> int:
        """Return the number of iterations that the settings prescribe for a function of CrypTen."""
        return int(self.settings[f"functions.{function}"])


def exp_cost(d: Dimensions) -> KernelCost:
    """Return the cost of CrypTen's exp: a squaring per iteration."""
    steps = d.iterations("exp_iterations")
    return KernelCost(rounds=steps, bytes=8 * steps, offline=8 * steps)


def reciprocal_cost(d: Dimensions) -> KernelCost:
    """Return the cost of CrypTen's reciprocal of a positive number: exp, then a square and a product per step."""
    steps = d.iterations("reciprocal_nr_iters")
    return exp_cost(d) + KernelCost(rounds=2 * steps, bytes=24 * steps, offline=16 * steps)


def inv_sqrt_cost(d: Dimensions) -> KernelCost:
    """Return the cost of CrypTen's inverse square root: exp, then a square and two products per step."""
    steps = d.iterations("sqrt_nr_iters")
    return exp_cost(d) + KernelCost(rounds=3 * steps, bytes=40 * steps, offline=24 * steps)


def tanh_cost(d: Dimensions) -> KernelCost:
    """Return the cost of CrypTen's tanh and sigmoid: exp, a comparison, and products."""
    return exp_cost(d) + KernelCost(rounds=15, bytes=312, offline=168)


def erf_cost(d: Dimensions) -> KernelCost:
    """Return the cost of CrypTen's erf: a power of odd exponent per term of the series."""
    steps = [_power_steps(2 * term + 1) for term in range(1, d.iterations("erf_iterations") + 1)]
    squares, products = (sum(counts) for counts in zip(*steps, strict=True))
    return KernelCost(rounds=squares + products, bytes=8 * squares + 16 * products, offline=8 * (squares + products))


def _power_steps(exponent: int) -> tuple[int, int]:
    """Return the squares and products that CrypTen's power takes."""
    if exponent < 2:
        return 0, 0
    squares, products = _power_steps(exponent // 2)
    return squares + 1, products + exponent % 2


def result_bits(op: Op) -> int:
    """Return the low bits of its result's ring words that the readers of an operation need."""
    return int(op.attribute("bits", 64))


def factor_bits(op: Op) -> int:
    """Return the low bits that a product needs of its factors, before it is truncated by 16 bits."""
    return min(64, result_bits(op) + 16)
