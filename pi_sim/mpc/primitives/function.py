"""What a function by pieces is: lines, and one short Fourier series, between thresholds."""

from dataclasses import dataclass, replace

import torch

FRACTION_BITS = 16
"""Bits of a value's fraction."""


@dataclass(frozen=True)
class Linear:
    """constant + slope x, the slope a whole number: exact."""

    constant: float = 0.0
    slope: int = 0
    word = torch.int64

    @property
    def encoded_one(self) -> int:
        """What one counts in the piece's own fraction."""
        return 1 << FRACTION_BITS

    @property
    def encoded_slope(self) -> int:
        """What x is multiplied by."""
        return self.slope


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


Piece = Linear | FourierSeries


@dataclass(frozen=True)
class Piecewise:
    """Pieces between ascending thresholds, one more than these; at most one of them is a curve."""

    thresholds: tuple[float, ...]
    pieces: tuple[Piece, ...]

    @property
    def nonzero_intervals(self) -> tuple[int, ...]:
        """The intervals on which it is not zero."""
        return tuple(number for number, piece in enumerate(self.pieces) if piece != Linear())

    @property
    def series(self) -> FourierSeries | None:
        return next((piece for piece in self.pieces if isinstance(piece, FourierSeries)), None)


RELU = Piecewise(thresholds=(0.0,), pieces=(Linear(), Linear(slope=1)))
