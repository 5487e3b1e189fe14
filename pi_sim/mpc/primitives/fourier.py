"""What a function by pieces is: lines, and one short Fourier series, between thresholds."""

# MERGED: A short Fourier series of a secret that is known to lie on an interval: one opening, no comparison.
# MERGED: A short Fourier series as SHAFT computes it: in words of 64 bits, truncated by each party alone.
# MERGED: Cosines and sines in integers: both parties, and a GPU, get the same bits, as factors of random shares must be. They are read from tables, between whose places they are straight lines.  # noqa: E501

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.primitives.ring import FRACTION_BITS
from pi_sim.mpc.primitives.truncation import lift_u32_to_u64, truncate_locally
from pi_sim.mpc.runtime import Runtime


@dataclass(frozen=True)
class FourierSeries:
    """constant + slope x + sum_j (cosines_j cos(j w x) + sines_j sin(j w x)), w = 2 pi / 2^period in units of the ring.

    It is computed in words of 32 bits, `fraction` of them for the fraction, so that where it is used its values must
    lie between `low` and `low` + 2^(31 - fraction). Its waves have `wave` bits of fraction, their factors what is left.
    """

    period_bits: int
    fraction_bits: int
    basis_bits: int
    low: float
    constant: float = 0.0
    slope: float = 0.0
    cosines: tuple[float, ...] = ()
    sines: tuple[float, ...] = ()
    word = torch.int32

    @property
    def harmonics(self) -> int:
        return max(len(self.cosines), len(self.sines))

    @property
    def encoded_one(self) -> int:
        """What one counts in the piece's own fraction."""
        return 1 << self.fraction_bits

    @property
    def encoded_slope(self) -> int:
        """What x is multiplied by, into the piece's own fraction."""
        return round(self.slope * (1 << self.fraction_bits - FRACTION_BITS))

    def scale(self, factor: float) -> "FourierSeries":
        """The same, multiplied by a number."""
        cosines, sines = (tuple(factor * each for each in values) for values in (self.cosines, self.sines))
        return replace(self, constant=factor * self.constant, slope=factor * self.slope, cosines=cosines, sines=sines)


@dataclass(frozen=True)
class FourierBasis(Correlation):
    """r, and the cosines and sines of its multiples, all in words of `word`."""

    length: int
    series: FourierSeries
    word: torch.dtype

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec((self.length,), dtype=self.word),)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec((2 * self.series.harmonics, self.length), dtype=self.word),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (basis(self.series, values[0].to(torch.int32)).to(self.word),)


def evaluate(rt: Runtime, share: Tensor, curve: FourierSeries) -> Tensor:
    """The series of every element; its slope must be zero.

    1. Take shares of a random r and of the cosines and sines of its multiples from the dealer.
    2. Open m = x + r, of which a period's bits matter (1 round, 4 bytes).
    3. cos(w (m - r)) and sin(w (m - r)) are linear in what is shared: local.
    4. Truncate (1 round, 4 bytes).

    2 rounds, 8 bytes per element. Source: SHAFT (NDSS 2025).
    """
    flat = share.reshape(-1).to(curve.word)
    r, dealt = rt.correlated(FourierBasis(len(flat), curve, curve.word))
    m = rt.reveal_u32(flat + r)
    return truncate_series(rt, combine_basis(rt, curve, m, dealt), curve).view(share.shape)


def combine_basis(rt: Runtime, curve: FourierSeries, m: Tensor, dealt: Tensor) -> Tensor:
    """Shares of the series at m - r, of the opened m and the shared waves of r, before truncation: local."""
    total = torch.full_like(m, round(curve.constant * curve.encoded_one) if rt.rank == 0 else 0)
    for factor, wave in zip(public_coefficients(curve, m.to(torch.int32)), dealt, strict=True):
        total.addcmul_(factor.to(m.dtype), wave)
    return total


def truncate_series(rt: Runtime, total: Tensor, curve: FourierSeries) -> Tensor:
    """A curve's values in words of 64 bits and the fraction of values."""
    return lift_u32_to_u64(rt, total, curve.fraction_bits - FRACTION_BITS, round(curve.low * curve.encoded_one))


def evaluate_local_truncation(rt: Runtime, share: Tensor, curve: FourierSeries) -> Tensor:
    """The series of every element, which must lie within its period; its slope must be zero.

    1. Take shares of a random r and of the cosines and sines of its multiples from the dealer.
    2. Open m = x + r (1 round, 8 bytes).
    3. cos(w (m - r)) and sin(w (m - r)) are linear in what is shared: local.
    4. Truncate, each party its own share: local, and wrong with probability |y| / 2^(64 - fraction).

    1 round, 8 bytes per element, 16 offline for each harmonic. Source: SHAFT (NDSS 2025).
    """
    flat = share.reshape(-1)
    r, dealt = rt.correlated(FourierBasis(len(flat), curve, torch.int64))
    (m,) = rt.reveal(flat + r)
    return truncate_locally(combine_basis(rt, curve, m, dealt), curve.fraction_bits - FRACTION_BITS).view(share.shape)


WORKING_BITS = 30
"""Bits of the fraction of what tables are made of."""
QUARTER_MASK = 2**WORKING_BITS - 1
TABLE_BITS = 24
"""Bits of the fraction of a table."""
TABLE_SIZE_BITS = 13
"""A table has 2^13 places in a period, small enough for a core's nearest cache."""
CoefficientPairs = tuple[tuple[float, float], ...]
"""a and b of a cos(j t) + b sin(j t), for j = 1, 2, ..."""


def public_coefficients(curve: FourierSeries, word: Tensor) -> Iterator[Tensor]:
    """What the waves of r are multiplied by, to get the curve's series at m - r for the public m.

    First a_j cos(j w m) + b_j sin(j w m), which belong to the cosines, then a_j sin(j w m) - b_j cos(j w m).
    """
    cosines, sines = (each + (0.0,) * (curve.harmonics - len(each)) for each in (curve.cosines, curve.sines))
    return _evaluate_by_table(
        tuple(zip(cosines, sines, strict=True)), word, curve.period_bits, curve.fraction_bits - curve.basis_bits
    )


def basis(curve: FourierSeries, word: Tensor) -> Tensor:
    """All cos(j w r), then all sin(j w r), as the dealer shares them: (2 harmonics, n)."""
    return torch.stack(
        list(_evaluate_by_table(((1.0, 0.0),) * curve.harmonics, word, curve.period_bits, curve.basis_bits))
    )


def _evaluate_by_table(pairs: CoefficientPairs, word: Tensor, period: int, fraction: int) -> Iterator[Tensor]:
    """Of 32-bit words the pairs' series, then those shifted by a quarter, with so many bits of fraction."""
    values, slopes = interpolation_tables(pairs, period, fraction, word.device)
    spread = period - TABLE_SIZE_BITS
    shifted = word + (1 << spread - 1)
    place, rest = (shifted >> spread) & (2**TABLE_SIZE_BITS - 1), (shifted & (2**spread - 1)) - (1 << spread - 1)
    for value, slope in zip(values, slopes, strict=True):
        yield value.index_select(0, place).addcmul_(slope.index_select(0, place), rest) >> (TABLE_BITS - fraction)


@cache
def interpolation_tables(
    pairs: CoefficientPairs, period: int, fraction: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Values at the places, half of the last bit that is kept added; and slopes, for each unit of the ring."""
    values = _exact_series(pairs, torch.arange(2**TABLE_SIZE_BITS) << (32 - TABLE_SIZE_BITS))
    cosines, sines = values.chunk(2)
    turn = round(2 * math.pi * 2 ** (40 - period))
    order = torch.arange(1, len(pairs) + 1).view(-1, 1)
    slopes = (torch.cat([-sines, cosines]) * order.repeat(2, 1) * turn) >> 40
    return (values + (1 << TABLE_BITS - fraction - 1)).int().to(device), slopes.int().to(device)


def _exact_series(pairs: CoefficientPairs, turn: Tensor) -> Tensor:
    """The pairs' series at angles 2 pi turn / 2^32, then those shifted by a quarter: (2 harmonics, n)."""
    cosine, sine = _cos_sin(turn)
    x, y = torch.full_like(turn, 2**WORKING_BITS), torch.zeros_like(turn)
    first, second = [], []
    for a, b in ((round(a * 2**TABLE_BITS), round(b * 2**TABLE_BITS)) for a, b in pairs):
        x, y = (cosine * x - sine * y) >> WORKING_BITS, (sine * x + cosine * y) >> WORKING_BITS
        first.append((a * x + b * y) >> WORKING_BITS)
        second.append((a * y - b * x) >> WORKING_BITS)
    return torch.stack([*first, *second])


def _cos_sin(turn: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi * turn / 2^32."""
    quadrant, place = turn >> WORKING_BITS, turn & QUARTER_MASK
    square = (place * place) >> WORKING_BITS
    cosine, sine = _taylor_series(square, 0), (_taylor_series(square, 1) * place) >> WORKING_BITS
    turned, back = (quadrant & 1).bool(), (quadrant & 2).bool()
    x, y = torch.where(turned, -sine, cosine), torch.where(turned, cosine, sine)
    return torch.where(back, -x, x), torch.where(back, -y, y)


def _taylor_series(square: Tensor, first: int) -> Tensor:
    """Horner's rule for the Taylor series of the cosine (`first` = 0), or of the sine over its argument."""
    total = torch.zeros_like(square)
    for power in range(first + 12, first - 1, -2):
        total = _taylor_coefficient(power) + ((total * square) >> WORKING_BITS)
    return total


def _taylor_coefficient(power: int) -> int:
    """(pi/2)^power / power!, with the sign that it has in the series."""
    value: float = math.prod([math.pi / 2] * power) / math.factorial(power)
    return round(value * (1 << WORKING_BITS)) * (-1 if power % 4 > 1 else 1)
