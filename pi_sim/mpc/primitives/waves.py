"""Cosines and sines in integers: both parties, and a GPU, get the same bits, as factors of random shares must be.

They are read from tables, between whose places they are straight lines.
"""

import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from pi_sim.mpc.primitives.function import FourierSeries

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
    return _evaluate_by_table(tuple(zip(cosines, sines, strict=True)), word, curve.period_bits, curve.fraction_bits - curve.basis_bits)


def basis(curve: FourierSeries, word: Tensor) -> Tensor:
    """All cos(j w r), then all sin(j w r), as the dealer shares them: (2 harmonics, n)."""
    return torch.stack(list(_evaluate_by_table(((1.0, 0.0),) * curve.harmonics, word, curve.period_bits, curve.basis_bits)))


def _evaluate_by_table(pairs: CoefficientPairs, word: Tensor, period: int, fraction: int) -> Iterator[Tensor]:
    """Of 32-bit words the pairs' series, then those shifted by a quarter, with so many bits of fraction."""
    values, slopes = interpolation_tables(pairs, period, fraction, word.device)
    spread = period - TABLE_SIZE_BITS
    shifted = word + (1 << spread - 1)
    place, rest = (shifted >> spread) & (2**TABLE_SIZE_BITS - 1), (shifted & (2**spread - 1)) - (1 << spread - 1)
    for value, slope in zip(values, slopes, strict=True):
        yield value.index_select(0, place).addcmul_(slope.index_select(0, place), rest) >> (TABLE_BITS - fraction)


@cache
def interpolation_tables(pairs: CoefficientPairs, period: int, fraction: int, device: torch.device) -> tuple[Tensor, Tensor]:
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
