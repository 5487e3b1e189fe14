"""What a function by pieces is: lines and short Fourier series between thresholds."""

from dataclasses import dataclass

FRACTION = 16
"""Bits of a value's fraction."""
FINE = 24
"""Further bits that pieces with coefficients are computed with, until they are truncated."""
WAVE = 20
"""Bits of the fraction of the dealer's waves; coefficients get what is left of FRACTION + FINE."""


@dataclass(frozen=True)
class Piece:
    """constant + slope x + sum_j (cosines_j cos(j w x) + sines_j sin(j w x)), w the function's fundamental."""

    constant: float = 0.0
    slope: float = 0.0
    cosines: tuple[float, ...] = ()
    sines: tuple[float, ...] = ()

    @property
    def harmonics(self) -> int:
        return max(len(self.cosines), len(self.sines))

    def times(self, factor: float) -> "Piece":
        """The same, multiplied by a number."""
        cosines, sines = (tuple(factor * each for each in values) for values in (self.cosines, self.sines))
        return Piece(factor * self.constant, factor * self.slope, cosines, sines)

    @property
    def exact(self) -> bool:
        """Whether it needs no finer fraction than values have."""
        return not self.harmonics and self.slope.is_integer()


@dataclass(frozen=True)
class Function:
    """Pieces between ascending thresholds, one more than these; the period is 2^period units of the ring."""

    thresholds: tuple[float, ...]
    pieces: tuple[Piece, ...]
    period: int = 0

    @property
    def chosen(self) -> tuple[int, ...]:
        """The intervals on which it is not zero."""
        return tuple(number for number, piece in enumerate(self.pieces) if piece != Piece())

    @property
    def harmonics(self) -> int:
        return max(piece.harmonics for piece in self.pieces)

    @property
    def fine(self) -> int:
        """The further bits of its fraction."""
        return 0 if all(piece.exact for piece in self.pieces) else FINE


RELU = Function(thresholds=(0.0,), pieces=(Piece(), Piece(slope=1.0)))
