"""Short Fourier series of a secret on an interval: one masked opening, no comparison.

The dealer shares the cosines and sines of multiples of the mask r; those of x = m - r are linear in them with public
coefficients. `evaluate` computes in words of 32 bits and truncates faithfully; `evaluate_local_truncation` is SHAFT's
form, in words of 64 bits that each party truncates alone.

Cosines and sines are computed in integers, so that both parties, and a GPU, get the same bits: they multiply random
shares. They are read from tables with linear interpolation.
"""

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
    """constant + slope x + sum_j (cosines_j cos(j w x) + sines_j sin(j w x)), w = 2 pi / 2^period_bits per ring unit.

    Computed in 32-bit words with `fraction_bits` of fraction, so that wherever the series is used its values must lie
    between `low` and `low` + 2^(31 - fraction_bits). Of these bits `basis_bits` belong to the cosines and sines of the
    mask, the others to their public coefficients.
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
        """The number 1 in the series' own fixed point."""
        return 1 << self.fraction_bits

    @property
    def encoded_slope(self) -> int:
        """The integer factor that takes slope x from a fixed-point x to the series' own fixed point."""
        return round(self.slope * (1 << self.fraction_bits - FRACTION_BITS))

    def scale(self, factor: float) -> "FourierSeries":
        """Return the series multiplied by a number."""
        cosines, sines = (tuple(factor * value for value in values) for values in (self.cosines, self.sines))
        return replace(self, constant=factor * self.constant, slope=factor * self.slope, cosines=cosines, sines=sines)


def masked_basis(length: int, series: FourierSeries, word: torch.dtype) -> Correlation:
    """Return the correlation of a mask r (length), and the cosines and sines (2 harmonics, length) of its multiples.

    All are shared in words of `word`.
    """
    r, values = TensorSpec((length,), dtype=word), TensorSpec((2 * series.harmonics, length), dtype=word)
    return Correlation((r,), (values,), lambda r: (basis(series, r.to(torch.int32)).to(word),))


def evaluate(rt: Runtime, share: Tensor, series: FourierSeries) -> Tensor:
    """Return the series of every element; its slope must be zero.

    1. Take shares of a random r and of the cosines and sines of its multiples from the dealer.
    2. Open m = x + r, modulo 2^32, of which a period's bits matter (1 round, 4 bytes).
    3. cos(w (m - r)) and sin(w (m - r)) are linear in what is shared: local.
    4. Truncate (1 round, 4 bytes).

    2 rounds, 8 bytes per element. Source: SHAFT (NDSS 2025).
    """
    flat = share.reshape(-1).to(series.word)
    r, basis_share = rt.correlated(masked_basis(len(flat), series, series.word))
    m = rt.reveal_u32(flat + r)
    return truncate_series(rt, combine_basis(rt, series, m, basis_share), series).view(share.shape)


def combine_basis(rt: Runtime, series: FourierSeries, m: Tensor, basis_share: Tensor) -> Tensor:
    """Return shares of the series at m - r, before truncation, from the opened m and r's shared basis: local."""
    total = torch.zeros_like(m) + (round(series.constant * series.encoded_one) if rt.rank == 0 else 0)
    for coefficient, row in zip(public_coefficients(series, m.to(torch.int32)), basis_share, strict=True):
        total.addcmul_(coefficient.to(m.dtype), row)
    return total


def truncate_series(rt: Runtime, total: Tensor, series: FourierSeries) -> Tensor:
    """Return a series' values (n) as 64-bit fixed-point numbers: 1 round, 4 bytes and 16 offline per element."""
    return lift_u32_to_u64(rt, total, series.fraction_bits - FRACTION_BITS, round(series.low * series.encoded_one))


def evaluate_local_truncation(rt: Runtime, share: Tensor, series: FourierSeries) -> Tensor:
    """Return the series of every element, which must lie within its period; its slope must be zero.

    The steps of `evaluate` in words of 64 bits (1 round, 8 bytes), but each party truncates its own share: local, and
    wrong with probability |y| / 2^(64 - fraction). 16 bytes offline per harmonic. Source: SHAFT (NDSS 2025).
    """
    flat = share.reshape(-1)
    r, basis_share = rt.correlated(masked_basis(len(flat), series, torch.int64))
    (m,) = rt.reveal(flat + r)
    total = combine_basis(rt, series, m, basis_share)
    return truncate_locally(total, series.fraction_bits - FRACTION_BITS).view(share.shape)


WORKING_BITS = 30
"""Bits of the fraction in which tables are computed."""
QUARTER_MASK = 2**WORKING_BITS - 1
TABLE_BITS = 24
"""Bits of the fraction of a table's entries."""
TABLE_SIZE_BITS = 13
"""A table has 2^13 entries per period, small enough for a core's nearest cache."""
CoefficientPairs = tuple[tuple[float, float], ...]
"""a and b of a cos(j t) + b sin(j t), for j = 1, 2, ..."""


def public_coefficients(series: FourierSeries, word: Tensor) -> Iterator[Tensor]:
    """Yield the factors of the rows of r's basis whose sum is the series at m - r, for the public m = `word`.

    First a_j cos(j w m) + b_j sin(j w m), which belong to the cosines, then a_j sin(j w m) - b_j cos(j w m).
    """
    padded = (values + (0.0,) * (series.harmonics - len(values)) for values in (series.cosines, series.sines))
    pairs = tuple(zip(*padded, strict=True))
    return _evaluate_by_table(pairs, word, series.period_bits, series.fraction_bits - series.basis_bits)


def basis(series: FourierSeries, word: Tensor) -> Tensor:
    """Return all cos(j w r), then all sin(j w r), as the dealer shares them: (2 harmonics, n) for r = `word` (n)."""
    pairs = ((1.0, 0.0),) * series.harmonics
    return torch.stack(list(_evaluate_by_table(pairs, word, series.period_bits, series.basis_bits)))


def _evaluate_by_table(pairs: CoefficientPairs, word: Tensor, period: int, fraction: int) -> Iterator[Tensor]:
    """Yield the pairs' harmonics at 32-bit words, then those shifted by a quarter turn, with `fraction` bits."""
    values, slopes = interpolation_tables(pairs, period, fraction, word.device)
    step_bits = period - TABLE_SIZE_BITS
    shifted = word + (1 << step_bits - 1)
    index = (shifted >> step_bits) & (2**TABLE_SIZE_BITS - 1)
    rest = (shifted & (2**step_bits - 1)) - (1 << step_bits - 1)
    for value, slope in zip(values, slopes, strict=True):
        yield value.index_select(0, index).addcmul_(slope.index_select(0, index), rest) >> (TABLE_BITS - fraction)


@cache
def interpolation_tables(
    pairs: CoefficientPairs, period: int, fraction: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return each harmonic's values at the table's positions, and its slopes per ring unit: (2 harmonics, 2^13) each.

    Half of the last bit that is kept is added to the values, so that the final shift rounds to nearest.
    """
    values = _exact_series(pairs, torch.arange(2**TABLE_SIZE_BITS) << (32 - TABLE_SIZE_BITS))
    cosines, sines = values.chunk(2)
    turn = round(2 * math.pi * 2 ** (40 - period))
    order = torch.arange(1, len(pairs) + 1).view(-1, 1)
    slopes = (torch.cat([-sines, cosines]) * order.repeat(2, 1) * turn) >> 40
    return (values + (1 << TABLE_BITS - fraction - 1)).int().to(device), slopes.int().to(device)


def _exact_series(pairs: CoefficientPairs, turn: Tensor) -> Tensor:
    """Return the pairs' harmonics at angles 2 pi turn / 2^32, then those shifted by a quarter: (2 harmonics, n)."""
    cosine, sine = _cos_sin(turn)
    x, y = torch.full_like(turn, 2**WORKING_BITS), torch.zeros_like(turn)
    harmonics, shifted = [], []
    for a, b in ((round(a * 2**TABLE_BITS), round(b * 2**TABLE_BITS)) for a, b in pairs):
        x, y = (cosine * x - sine * y) >> WORKING_BITS, (sine * x + cosine * y) >> WORKING_BITS
        harmonics.append((a * x + b * y) >> WORKING_BITS)
        shifted.append((a * y - b * x) >> WORKING_BITS)
    return torch.stack([*harmonics, *shifted])


def _cos_sin(turn: Tensor) -> tuple[Tensor, Tensor]:
    """Return cos and sin of 2 pi turn / 2^32."""
    quadrant, angle = turn >> WORKING_BITS, turn & QUARTER_MASK
    square = (angle * angle) >> WORKING_BITS
    cosine, sine = _taylor_series(square, 0), (_taylor_series(square, 1) * angle) >> WORKING_BITS
    is_odd, is_upper = (quadrant & 1).bool(), (quadrant & 2).bool()
    x, y = torch.where(is_odd, -sine, cosine), torch.where(is_odd, cosine, sine)
    return torch.where(is_upper, -x, x), torch.where(is_upper, -y, y)


def _taylor_series(square: Tensor, first: int) -> Tensor:
    """Evaluate the Taylor series of the cosine (`first` = 0), or of the sine over its argument, by Horner's rule.

    The coefficients are (pi/2)^power / power! with their signs.
    """
    total = torch.zeros_like(square)
    for power in range(first + 12, first - 1, -2):
        magnitude: float = math.prod([math.pi / 2] * power) / math.factorial(power)
        coefficient = round(magnitude * (1 << WORKING_BITS)) * (-1 if power % 4 > 1 else 1)
        total = coefficient + ((total * square) >> WORKING_BITS)
    return total
