"""Functions of rows: 1 / v and 1 / sqrt(v) of one number v per row, mean and RMS, and the ragged rows of causal scores.

Normalisation brings a positive v into [1, 2] or [1, 4), whatever its size; a short series does the rest. Ragged rows
are stored back to back: the attention scores that a causal mask leaves, and no others.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc.primitives import beaver, comparison, fourier, piecewise
from pi_sim.mpc.primitives.comparison import interval_bits
from pi_sim.mpc.primitives.fourier import FourierSeries
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.runtime import Runtime

RECIPROCAL_SERIES = FourierSeries(
    period_bits=18,
    fraction_bits=30,
    basis_bits=15,
    low=0.0,
    constant=1.2498792,
    cosines=(1.0976942, 0.430427, 0.0863146, 0.0036968),
    sines=(0.0905352, -0.132645, -0.0863099, -0.0156588),
)
"""1 / x on [1, 2], of period 4: max error 0.00001."""
INVERSE_ROOT_SERIES = FourierSeries(
    period_bits=19,
    fraction_bits=30,
    basis_bits=14,
    low=0.0,
    constant=0.8987439,
    cosines=(0.7245335, 0.4409093, 0.0700746, -0.0775361, -0.0350098, -0.002509),
    sines=(0.0294937, -0.2721578, -0.2937752, -0.1014259, 0.0010329, 0.0040545),
)
"""1 / sqrt(x) on [1, 4], of period 8: max error 0.00001."""
MIN_POWER_OF_4, MAX_POWER_OF_4 = -6, 14
"""Powers of 4 between which `inverse_root` normalises."""


def reciprocal(rt: Runtime, v: Tensor, most: int, least: int = 0) -> Tensor:
    """Return 1 / v for 2^least <= v <= 2^most, with least >= -8.

    1. Compare v with the powers of two between, all at once: shares of c = 2^-j for v in [2^j, 2^(j + 1)) (4 rounds).
    2. t = v c, in [1, 2] (1 round), truncated (1 round).
    3. y = 1 / t by a series (2 rounds).
    4. 1 / v = y c (1 round), truncated (1 round).

    10 rounds; 64 + 2 1/8 (most - least - 1) bytes per element. Max error 2^-15 or 0.0002 of the result, the larger.
    """
    powers = range(least, most)
    bits = interval_bits(rt, v, [2.0**power for power in powers[1:]])
    scale = _select_weight(bits, [2.0**-power for power in powers], FRACTION_BITS)
    normalised = truncate(rt, beaver.multiply(rt, v, scale), FRACTION_BITS)
    inverse = fourier.evaluate(rt, normalised, RECIPROCAL_SERIES)
    return truncate(rt, beaver.multiply(rt, inverse, scale), FRACTION_BITS)


def inverse_root(rt: Runtime, v: Tensor, factor: float) -> Tensor:
    """Return factor / sqrt(v), for a public factor of up to 1 and 4^-6 <= v < 4^15, with 32 bits of fraction.

    1. Compare v with the powers of 4, all at once: shares of c = 2^-j and c^2 for v in [4^j, 4^(j + 1)) (4 rounds).
    2. t = v c^2, in [1, 4) (1 round), truncated (1 round).
    3. y = 1 / sqrt(t) by a series (2 rounds).
    4. 1 / sqrt(v) = y c (1 round), not truncated: for large v all of its bits lie behind the 16th.

    9 rounds; 56 + 4 3/8 * 20 bytes per element.
    """
    powers = range(MIN_POWER_OF_4, MAX_POWER_OF_4 + 1)
    bits = interval_bits(rt, v, [4.0**power for power in powers[1:]], comparison.WIDE)
    square = _select_weight(bits, [4.0**-power for power in powers], 2 * FRACTION_BITS)
    normalised = truncate(rt, beaver.multiply(rt, v, square), 2 * FRACTION_BITS)
    scale = _select_weight(bits, [2.0**-power for power in powers], FRACTION_BITS)
    return beaver.multiply(rt, fourier.evaluate(rt, normalised, INVERSE_ROOT_SERIES.scale(factor)), scale)


def _select_weight(bits: Tensor, weights: list[float], fraction: int) -> Tensor:
    """Return the weight of the interval whose indicator bit is set, with `fraction` bits of fraction: local."""
    total = sum(bit * round(weight * 2**fraction) for bit, weight in zip(bits, weights, strict=True))
    assert isinstance(total, Tensor)
    return total


MEAN_FRACTION_BITS = 32
"""Bits of the fraction of 1 / d: with 16 bits the mean of a wide row would be off by percents."""


def subtract_mean(rt: Runtime, x: Tensor) -> Tensor:
    """Return x minus its mean over the last dimension, for |mean| < 2^14: 1 round, 8 bytes per row."""
    total = x.sum(-1, keepdim=True)
    return x - truncate(rt, total * round(2**MEAN_FRACTION_BITS / x.shape[-1]), MEAN_FRACTION_BITS)


def divide_by_rms(rt: Runtime, x: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean of x^2 + eps) over the last dimension d.

    1. Square (1 round); add up v = sum of x^2 + d eps, truncated (1 round, per row).
    2. 1 / sqrt(v), with 32 bits of fraction (9 rounds, per row, see `inverse_root`).
    3. Multiply by it and sqrt(d) (1 round), and truncate (1 round).

    13 rounds; 24 bytes per element.
    """
    width = x.shape[-1]
    v = truncate(rt, beaver.square(rt, x).sum(-1, keepdim=True), FRACTION_BITS)
    v = v + (round(width * eps * 2**FRACTION_BITS) if rt.rank == 0 else 0)
    root, doublings = math.frexp(math.sqrt(width))
    return truncate(rt, beaver.multiply(rt, x, inverse_root(rt, v, root)), 2 * FRACTION_BITS - doublings)


def apply_affine(rt: Runtime, x: Tensor, gamma: Any = None, beta: Any = None) -> Tensor:
    """Return x gamma + beta: with gamma 2 rounds, 16 bytes per element and 8 per column, without it none."""
    scaled = x if gamma is None else truncate(rt, beaver.multiply(rt, x, gamma.share), FRACTION_BITS)
    return scaled if beta is None else scaled + beta.share


Rectifier = Callable[[Runtime, Tensor], Tensor]
Largest = Callable[[Runtime, Tensor], Tensor]
"""Function that returns the largest (..., n) of each group (..., size, n)."""


def rectify_masked(rt: Runtime, x: Tensor) -> Tensor:
    """Return max(x, 0): 4 rounds, 10 1/8 bytes per element."""
    return piecewise.evaluate(rt, x, piecewise.RELU)


def larger_by(rectify: Rectifier) -> Largest:
    """Return the function max(a, b) = b + relu(a - b) of pairs."""

    def larger(rt: Runtime, pairs: Tensor) -> Tensor:
        first, second = pairs.unbind(-2)
        return second + rectify(rt, first - second)

    return larger


@dataclass(frozen=True)
class CausalRows:
    """The visible elements of matrices (rows, width): the first `lengths[j]`, at least one, of row j.

    Ragged tensors (..., elements) hold the visible elements of all rows back to back.
    """

    lengths: Tensor
    width: int

    @classmethod
    def of_scores(cls, rows: int, columns: int, causal: bool = True) -> "CausalRows":
        """Return the visible scores of the last `rows` tokens among `columns`; all of them without a causal mask."""
        lengths = torch.arange(columns - rows + 1, columns + 1) if causal else torch.full((rows,), columns)
        return cls(lengths, columns)

    def gather(self, x: Tensor) -> Tensor:
        """Return the visible elements of matrices (..., rows, width): (..., elements)."""
        return _take(x.flatten(-2), self._flat_positions())

    def scatter(self, values: Tensor) -> Tensor:
        """Return matrices (..., rows, width) from a ragged tensor, exact zeros at hidden elements."""
        matrices = values.new_zeros((*values.shape[:-1], len(self.lengths) * self.width))
        matrices[..., self._flat_positions().to(values.device)] = values
        return matrices.reshape(*values.shape[:-1], len(self.lengths), self.width)

    def broadcast(self, row_values: Tensor) -> Tensor:
        """Return each row's value (..., rows) at every visible element of the row: (..., elements)."""
        return _take(row_values, _row_index(self.lengths))

    def row_sums(self, values: Tensor) -> Tensor:
        """Return the sum of each row: (..., rows)."""
        return self.scatter(values).sum(-1)

    def row_maxima(self, rt: Runtime, values: Tensor, largest: Largest, size: int = 2) -> Tensor:
        """Return the maximum of each row (..., rows), by a tournament in groups of up to `size` elements.

        The rounds of `largest` per level. A group that lacks elements has the last one of its row several times.
        """
        for lengths, groups in self._levels(size):
            starts = _row_start(lengths)
            last = (starts + lengths - 1).repeat_interleave(groups)
            first = starts.repeat_interleave(groups) + size * _position_in_row(groups)
            winners = largest(rt, _take(values, torch.minimum(first + torch.arange(size).view(-1, 1), last)))
            remaining = (lengths + size - 1) // size
            carried = remaining - groups  # a single element that is left over stays
            rest = (starts + lengths - 1)[carried == 1]
            order = torch.cat([_row_index(groups), _row_index(carried)]).argsort(stable=True)
            values = _take(torch.cat([winners, _take(values, rest)], -1), order)
        return values

    def group_counts(self, size: int) -> list[int]:
        """Return the number of groups of each level of a tournament in one matrix."""
        return [int(groups.sum()) for _, groups in self._levels(size)]

    def _levels(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the length of each row, and the number of its groups of two elements or more, level by level."""
        lengths = self.lengths
        while int(lengths.max()) > 1:
            yield lengths, lengths // size + (lengths % size > 1)
            lengths = (lengths + size - 1) // size

    def _flat_positions(self) -> Tensor:
        return _row_index(self.lengths) * self.width + _position_in_row(self.lengths)


def _take(values: Tensor, indices: Tensor) -> Tensor:
    return values[..., indices.to(values.device)]


def _row_index(lengths: Tensor) -> Tensor:
    """Return the row number of every element."""
    return torch.arange(len(lengths)).repeat_interleave(lengths)


def _row_start(lengths: Tensor) -> Tensor:
    """Return the index of each row's first element."""
    return lengths.cumsum(0) - lengths


def _position_in_row(lengths: Tensor) -> Tensor:
    """Return the position of every element within its row."""
    return torch.arange(int(lengths.sum())) - _row_start(lengths).repeat_interleave(lengths)
