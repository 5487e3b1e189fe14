"""Functions by pieces, of one masked opening: each interval's line or series, chosen by secret bits."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.primitives import comparison
from pi_sim.mpc.primitives.blocks import in_blocks
from pi_sim.mpc.primitives.function import Curve, Function, Piece
from pi_sim.mpc.primitives.series import truncated
from pi_sim.mpc.primitives.waves import factors, waves


@dataclass(frozen=True)
class Selection(Correlation):
    """r with the tables of its digits and its top bit; for each interval a bit p, p r, and p times the waves of r."""

    length: int
    function: Function

    @property
    def random_parts(self) -> tuple[Part, ...]:
        return Part((self.length,)), Part((len(self.function.nonzero_intervals), self.length), 1, torch.uint8)

    @property
    def dependent_parts(self) -> tuple[Part, ...]:
        dealt = (part for piece in _chosen(self.function) for part in self._piece_specs(piece))
        return *comparison.parts(self.length, comparison.NARROW), *dealt

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        r, p = values
        dealt = (value for bit, piece in zip(p, _chosen(self.function), strict=True) for value in _deal(r, bit, piece))
        return *comparison.derive(r, comparison.NARROW), *dealt

    def _piece_specs(self, piece: Piece) -> Iterator[Part]:
        yield Part((self.length,), dtype=piece.word)
        if piece.slope:
            yield Part((self.length,), dtype=piece.word)
        if isinstance(piece, Curve):
            yield from [Part((2 * piece.harmonics, self.length), dtype=piece.word)] * 2


def _chosen(function: Function) -> list[Piece]:
    return [function.pieces[number] for number in function.nonzero_intervals]


def _deal(r: Tensor, p: Tensor, piece: Piece) -> Iterator[Tensor]:
    bit, mask = p.to(piece.word), r.to(piece.word)
    yield bit
    if piece.slope:
        yield bit * mask
    if isinstance(piece, Curve):
        yield from in_blocks(partial(_deal_waves, piece), mask, bit)


def _deal_waves(curve: Curve, r: Tensor, bit: Tensor) -> tuple[Tensor, Tensor]:
    dealt = waves(curve, r)
    return dealt, bit * dealt


def evaluate(share: Tensor, function: Function) -> Tensor:
    """The function of every element, for |x| < 2^15 less its largest threshold.

    1. Take a mask r with its tables, a bit p for each interval, and their products from the dealer (`Selection`).
    2. Open m = x + r (1 round, 8 bytes).
    3. Compare x with all thresholds at once (`comparison`: 2 rounds, 2 1/4 bytes for each threshold).
    4. Open z = i ^ p, i telling whether x is in an interval (1 round, 1/8 byte for each interval).
    5. i u = p u + z (u - 2 p u): local, since x = m - r, and cos(w x) and sin(w x) are linear in the cosine and the
       sine of w r with public factors.
    6. Truncate what is curved (1 round, 4 bytes).

    4 rounds, or 5 with step 6. Sources: comparison and selection are ours; the masked series is SHAFT's (NDSS 2025).
    """
    flat = share.reshape(-1)
    r, p, table, top, *dealt = session.deal(Selection(len(flat), function))
    (m,) = session.reveal(flat + r)
    inside = comparison.intervals(m.to(comparison.NARROW), table, top, function.thresholds)
    z = session.reveal_bits(inside[list(function.nonzero_intervals)] ^ p, 1)
    straight, *curved = in_blocks(partial(_select, function), m, flat, z, *dealt)
    if function.series:
        straight += truncated(curved[0], function.series)
    return straight.view(share.shape)


def _select(function: Function, m: Tensor, share: Tensor, z: Tensor, *dealt: Tensor) -> tuple[Tensor, ...]:
    """The sum of all lines in the fraction of values, and the curve in its own."""
    remaining, straight, curved = iter(dealt), torch.zeros_like(share), []
    for bit, piece in zip(z, _chosen(function), strict=True):
        found = _piece(piece, m.to(piece.word), share.to(piece.word), bit.to(piece.word), remaining)
        if isinstance(piece, Curve):
            curved.append(found)
        else:
            straight = straight + found
    return straight, *curved


def _piece(piece: Piece, m: Tensor, share: Tensor, z: Tensor, dealt: Iterator[Tensor]) -> Tensor:
    """i times the piece's value u: p u + z (u - 2 p u)."""
    p, one = next(dealt), round(piece.constant * piece.encoded_one)
    value: Tensor | int = one if session.rank() == 0 else 0
    masked = p * one
    if piece.slope:
        value = share * piece.encoded_slope + value
        masked += (m * p - next(dealt)) * piece.encoded_slope
    if isinstance(piece, Curve):
        value = torch.zeros_like(m) + value
        for factor, wave, product in zip(factors(piece, m), next(dealt), next(dealt), strict=True):
            value.addcmul_(factor, wave)
            masked.addcmul_(factor, product)
    return torch.addcmul(masked, z, value - 2 * masked)
