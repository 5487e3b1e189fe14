"""Functions by pieces, of one masked opening: each interval's line or series, chosen by secret bits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.primitives import comparison
from pi_sim.mpc.primitives.function import FRACTION, WAVE, Function, Piece
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.primitives.waves import UNIT, combine, waves


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
            *comparison.parts(self.shape),
            Part((intervals, *self.shape)),
            Part((intervals, *self.shape)),
            Part((waves, *self.shape)),
            *(Part((2 * piece.harmonics, *self.shape)) for piece in self._pieces() if piece.harmonics),
        )

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        r, p = values
        bits = p.to(torch.int64)
        cosines, sines = waves(r, self.function.period, self.function.harmonics)
        dealt = torch.stack([*cosines, *sines]) >> (UNIT - WAVE) if cosines else r.new_empty((0, *r.shape))
        products = (
            bit * _some(dealt, self.function.harmonics, piece.harmonics)
            for bit, piece in zip(bits, self._pieces(), strict=True)
            if piece.harmonics
        )
        return *comparison.derive(r), bits, bits * r, dealt, *products

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
    inside = comparison.intervals(m, table, top, function.thresholds)
    opened = session.reveal_bits(*(inside[number] ^ bit for number, bit in zip(function.chosen, p, strict=True)))
    public = waves(m, function.period, function.harmonics)
    total = torch.zeros_like(share)
    for place, number in enumerate(function.chosen):
        z = opened[place].to(torch.int64)
        piece, sign = function.pieces[number], 1 - 2 * z
        if piece.constant:
            one = sign * ring_p[place] + (z if session.rank() == 0 else 0)
            total += one * round(piece.constant * 2 ** (FRACTION + function.fine))
        if piece.slope:
            line = z * share + sign * (m * ring_p[place] - pr[place])
            total += line * round(piece.slope * 2**function.fine)
        if piece.harmonics:
            chosen = z * _some(dealt, function.harmonics, piece.harmonics) + sign * products.pop(0)
            total += combine(public, piece, chosen)
    return truncate(total, function.fine) if function.fine else total


def _some(dealt: Tensor, known: int, harmonics: int) -> Tensor:
    """The first harmonics of both kinds."""
    return dealt if known == harmonics else torch.cat([dealt[:harmonics], dealt[known : known + harmonics]])
