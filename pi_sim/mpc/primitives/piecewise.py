"""Functions by pieces: on each interval a line, or a short Fourier series, of one masked opening."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.primitives.comparison import DIGITS, negative, tables
from pi_sim.mpc.primitives.truncation import logical_shift, truncate
from pi_sim.mpc.primitives.waves import UNIT, waves

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

    @property
    def exact(self) -> bool:
        """Whether it needs no finer fraction than values have."""
        return not self.harmonics and self.slope.is_integer()


@dataclass(frozen=True)
class Function:
    """Pieces between thresholds, in ascending order: one more piece than thresholds. 2^period is in units of x's ring."""

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


@dataclass(frozen=True)
class Selection(Correlation):
    """r with the tables of its digits and its top bit; for each interval a bit p, p r, and p times the waves of r."""

    shape: Shape
    function: Function

    @property
    def drawn(self) -> tuple[Part, ...]:
        return Part(self.shape), Part((len(self.function.chosen), *self.shape), 1, torch.uint8)

    @property
    def derived(self) -> tuple[Part, ...]:
        intervals, waves = len(self.function.chosen), 2 * self.function.harmonics
        return (
            Part((DIGITS, *self.shape), 16, torch.int16),
            Part(self.shape, 1, torch.uint8),
            Part((intervals, *self.shape)),
            Part((intervals, *self.shape)),
            Part((waves, *self.shape)),
            *(Part((2 * piece.harmonics, *self.shape)) for piece in self._pieces()),
        )

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        r, p = values
        bits, top = p.to(torch.int64), logical_shift(r, 63).to(torch.uint8)
        dealt = _dealt_waves(r, self.function)
        products = (
            bit * _some(dealt, self.function.harmonics, piece.harmonics)
            for bit, piece in zip(bits, self._pieces(), strict=True)
        )
        return tables(r), top, bits, bits * r, dealt, *products

    def _pieces(self) -> list[Piece]:
        return [self.function.pieces[number] for number in self.function.chosen]


def evaluate(share: Tensor, function: Function) -> Tensor:
    """The function of every element.

    1. Take a mask r with its tables, a bit p for each interval, and their products from the dealer (`Selection`).
    2. Open m = x + r (1 round, 8 bytes).
    3. Compare x with all thresholds at once (`comparison`: 2 rounds, 5 bytes for each threshold).
    4. Open z = i ^ p, i telling whether x is in an interval (1 round, 1 byte for each interval).
    5. i u = z u + (1 - 2 z) p u: local, since x = m - r, and cos(w x) and sin(w x) are linear in the cosine and the
       sine of w r with public factors.
    6. Truncate, unless lines with whole slopes are all there is (1 round, 8 bytes).

    4 rounds, or 5 with step 6. Sources: comparison and selection are ours; the masked series is SHAFT's (NDSS 2025).
    """
    r, p, table, top, ring_p, pr, dealt, *products = session.deal(Selection(tuple(share.shape), function))
    (m,) = session.reveal(share + r)
    inside = _intervals(m, table, top, function)
    opened = torch.stack(
        session.reveal_bits(*(inside[number] ^ bit for number, bit in zip(function.chosen, p, strict=True)))
    )
    public = _public_waves(m, function)
    total = torch.zeros_like(share)
    for place, number in enumerate(function.chosen):
        z = opened[place].to(torch.int64)
        pick = _Pick(z, 1 - 2 * z, function)
        piece = function.pieces[number]
        total = total + pick.constant(piece, ring_p[place]) + pick.line(piece, share, m * ring_p[place] - pr[place])
        if piece.harmonics:
            plain = _some(dealt, function.harmonics, piece.harmonics)
            total = total + pick.series(piece, public, plain, products[place])
    return truncate(total, function.fine) if function.fine else total


@dataclass(frozen=True)
class _Pick:
    """Shares of i u from those of u and of p u."""

    z: Tensor
    sign: Tensor
    function: Function

    def constant(self, piece: Piece, p: Tensor) -> Tensor | int:
        if not piece.constant:
            return 0
        return (self.z * (1 - session.rank()) + self.sign * p) * round(
            piece.constant * 2 ** (FRACTION + self.function.fine)
        )

    def line(self, piece: Piece, x: Tensor, px: Tensor) -> Tensor | int:
        if not piece.slope:
            return 0
        return (self.z * x + self.sign * px) * round(piece.slope * 2**self.function.fine)

    def series(self, piece: Piece, public: tuple[list[Tensor], list[Tensor]], plain: Tensor, product: Tensor) -> Tensor:
        total = torch.zeros_like(self.z)
        for harmonic, (cosine, sine) in enumerate(zip(*public, strict=True)):
            if harmonic < piece.harmonics:
                a, b = (_coefficient(values, harmonic) for values in (piece.cosines, piece.sines))
                for factor, place in (
                    (a * cosine + b * sine, harmonic),
                    (a * sine - b * cosine, piece.harmonics + harmonic),
                ):
                    total = total + (factor >> UNIT) * (self.z * plain[place] + self.sign * product[place])
        return total


def _coefficient(values: Sequence[float], harmonic: int) -> int:
    return round(values[harmonic] * 2 ** (FRACTION + FINE - WAVE)) if harmonic < len(values) else 0


def _intervals(m: Tensor, table: Tensor, top: Tensor, function: Function) -> Tensor:
    """Shares of whether x lies in each interval: (intervals, ...)."""
    ends = torch.tensor([round(each * 2**FRACTION) for each in function.thresholds], device=m.device)
    below = negative(m - ends.view(-1, *[1] * m.dim()), table, top)
    whole = torch.full_like(below[:1], 1 - session.rank())
    return torch.cat([below, whole]) ^ torch.cat([torch.zeros_like(whole), below])


def _public_waves(m: Tensor, function: Function) -> tuple[list[Tensor], list[Tensor]]:
    return waves(m, function.period, function.harmonics) if function.harmonics else ([], [])


def _dealt_waves(r: Tensor, function: Function) -> Tensor:
    """Cosines, then sines of r: (2 harmonics, ...)."""
    cosines, sines = _public_waves(r, function)
    return torch.stack([*cosines, *sines]) >> (UNIT - WAVE) if function.harmonics else r.new_empty((0, *r.shape))


def _some(dealt: Tensor, known: int, harmonics: int) -> Tensor:
    """The first harmonics of both kinds."""
    return torch.cat([dealt[:harmonics], dealt[known : known + harmonics]])
