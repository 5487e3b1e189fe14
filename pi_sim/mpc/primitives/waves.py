"""Cosine and sine in integers: both parties, and a GPU, get the same bits, as factors of random shares must be."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pi_sim.mpc.primitives.function import FINE, FRACTION, WAVE, Piece

Waves = tuple[list[Tensor], list[Tensor]]
"""Cosines and sines of the multiples 1, 2, ... of an angle."""

UNIT = 30
"""Bits of the fraction."""
QUARTER = 2**UNIT - 1


def waves(word: Tensor, period: int, harmonics: int) -> Waves:
    """cos and sin of j * 2 pi * word / 2^period for j = 1 .. harmonics, with 30 bits of fraction; period up to 32."""
    if not harmonics:
        return [], []
    cosine, sine = _circle((word << (32 - period)) & (2**32 - 1))
    cosines, sines = [torch.full_like(word, 2**UNIT), cosine], [torch.zeros_like(word), sine]
    for _ in range(harmonics - 1):
        for known in (cosines, sines):
            known.append(((cosine * known[-1]) >> (UNIT - 1)) - known[-2])
    return cosines[1 : harmonics + 1], sines[1 : harmonics + 1]


def combine(public: Waves, piece: Piece, dealt: Tensor) -> Tensor:
    """sum_j a_j cos(j w (m - r)) + b_j sin(j w (m - r)) from m's waves and shares of r's: (2 harmonics, ...).

    The result has FRACTION + FINE bits of fraction.
    """
    total = torch.zeros_like(dealt[0])
    for harmonic, (cosine, sine) in enumerate(zip(*public, strict=True)):
        if harmonic < piece.harmonics:
            a, b = (_whole(values, harmonic) for values in (piece.cosines, piece.sines))
            total += ((a * cosine + b * sine) >> UNIT) * dealt[harmonic]
            total += ((a * sine - b * cosine) >> UNIT) * dealt[piece.harmonics + harmonic]
    return total


def _whole(coefficients: Sequence[float], harmonic: int) -> int:
    return round(coefficients[harmonic] * 2 ** (FRACTION + FINE - WAVE)) if harmonic < len(coefficients) else 0


def _circle(turn: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi * turn / 2^32."""
    quadrant, place = turn >> UNIT, turn & QUARTER
    square = (place * place) >> UNIT
    cosine, sine = _series(square, 0), (_series(square, 1) * place) >> UNIT
    turned, back = (quadrant & 1).bool(), (quadrant & 2).bool()
    x, y = torch.where(turned, -sine, cosine), torch.where(turned, cosine, sine)
    return torch.where(back, -x, x), torch.where(back, -y, y)


def _series(square: Tensor, first: int) -> Tensor:
    """Horner's rule for the Taylor series of the cosine (`first` = 0), or of the sine over its argument."""
    total = torch.zeros_like(square)
    for power in range(first + 12, first - 1, -2):
        total = _coefficient(power) + ((total * square) >> UNIT)
    return total


def _coefficient(power: int) -> int:
    """(pi/2)^power / power!, with the sign that it has in the series."""
    value: float = math.prod([math.pi / 2] * power) / math.factorial(power)
    return round(value * (1 << UNIT)) * (-1 if power % 4 > 1 else 1)
