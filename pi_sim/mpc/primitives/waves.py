"""Cosines and sines in integers: both parties, and a GPU, get the same bits, as factors of random shares must be.

They are read from tables, between whose places they are straight lines.
"""

import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from pi_sim.mpc.primitives.function import Curve

UNIT = 30
"""Bits of the fraction of what tables are made of."""
QUARTER = 2**UNIT - 1
FINE = 24
"""Bits of the fraction of a table."""
PLACES = 13
"""A table has 2^13 places in a period, small enough for a core's nearest cache."""

Pairs = tuple[tuple[float, float], ...]
"""a and b of a cos(j t) + b sin(j t), for j = 1, 2, ..."""


def factors(curve: Curve, word: Tensor) -> Iterator[Tensor]:
    """What the waves of r are multiplied by, to get the curve's series at m - r for the public m.

    First a_j cos(j w m) + b_j sin(j w m), which belong to the cosines, then a_j sin(j w m) - b_j cos(j w m).
    """
    cosines, sines = (each + (0.0,) * (curve.harmonics - len(each)) for each in (curve.cosines, curve.sines))
    return _read(tuple(zip(cosines, sines, strict=True)), word, curve.period_bits, curve.fraction_bits - curve.basis_bits)


def waves(curve: Curve, word: Tensor) -> Tensor:
    """All cos(j w r), then all sin(j w r), as the dealer shares them: (2 harmonics, n)."""
    return torch.stack(list(_read(((1.0, 0.0),) * curve.harmonics, word, curve.period_bits, curve.basis_bits)))


def _read(pairs: Pairs, word: Tensor, period: int, fraction: int) -> Iterator[Tensor]:
    """Of 32-bit words the pairs' series, then those shifted by a quarter, with so many bits of fraction."""
    values, slopes = tables(pairs, period, fraction, word.device)
    spread = period - PLACES
    shifted = word + (1 << spread - 1)
    place, rest = (shifted >> spread) & (2**PLACES - 1), (shifted & (2**spread - 1)) - (1 << spread - 1)
    for value, slope in zip(values, slopes, strict=True):
        yield value.index_select(0, place).addcmul_(slope.index_select(0, place), rest) >> (FINE - fraction)


@cache
def tables(pairs: Pairs, period: int, fraction: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Values at the places, half of the last bit that is kept added; and slopes, for each unit of the ring."""
    values = _series(pairs, torch.arange(2**PLACES) << (32 - PLACES))
    cosines, sines = values.chunk(2)
    turn = round(2 * math.pi * 2 ** (40 - period))
    order = torch.arange(1, len(pairs) + 1).view(-1, 1)
    slopes = (torch.cat([-sines, cosines]) * order.repeat(2, 1) * turn) >> 40
    return (values + (1 << FINE - fraction - 1)).int().to(device), slopes.int().to(device)


def _series(pairs: Pairs, turn: Tensor) -> Tensor:
    """The pairs' series at angles 2 pi turn / 2^32, then those shifted by a quarter: (2 harmonics, n)."""
    cosine, sine = _circle(turn)
    x, y = torch.full_like(turn, 2**UNIT), torch.zeros_like(turn)
    first, second = [], []
    for a, b in ((round(a * 2**FINE), round(b * 2**FINE)) for a, b in pairs):
        x, y = (cosine * x - sine * y) >> UNIT, (sine * x + cosine * y) >> UNIT
        first.append((a * x + b * y) >> UNIT)
        second.append((a * y - b * x) >> UNIT)
    return torch.stack([*first, *second])


def _circle(turn: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi * turn / 2^32."""
    quadrant, place = turn >> UNIT, turn & QUARTER
    square = (place * place) >> UNIT
    cosine, sine = _horner(square, 0), (_horner(square, 1) * place) >> UNIT
    turned, back = (quadrant & 1).bool(), (quadrant & 2).bool()
    x, y = torch.where(turned, -sine, cosine), torch.where(turned, cosine, sine)
    return torch.where(back, -x, x), torch.where(back, -y, y)


def _horner(square: Tensor, first: int) -> Tensor:
    """Horner's rule for the Taylor series of the cosine (`first` = 0), or of the sine over its argument."""
    total = torch.zeros_like(square)
    for power in range(first + 12, first - 1, -2):
        total = _coefficient(power) + ((total * square) >> UNIT)
    return total


def _coefficient(power: int) -> int:
    """(pi/2)^power / power!, with the sign that it has in the series."""
    value: float = math.prod([math.pi / 2] * power) / math.factorial(power)
    return round(value * (1 << UNIT)) * (-1 if power % 4 > 1 else 1)
