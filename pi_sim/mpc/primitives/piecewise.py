"""Functions by pieces from one masked opening: each interval's line or series, selected by secret bits.

A `Piecewise` function has lines and at most one Fourier series between thresholds. Polynomials by pieces are computed
by `evaluate_polynomials`, from powers and additive indicator bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.primitives import beaver, comparison
from pi_sim.mpc.primitives.comparison import interval_bits
from pi_sim.mpc.primitives.fourier import FourierSeries, basis, public_coefficients, truncate_series
from pi_sim.mpc.primitives.ring import FRACTION_BITS, blockwise
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.runtime import Runtime


@dataclass(frozen=True)
class Linear:
    """constant + slope x, with an integer slope: exact."""

    constant: float = 0.0
    slope: int = 0
    word = torch.int64

    @property
    def encoded_one(self) -> int:
        """The number 1 in fixed point."""
        return 1 << FRACTION_BITS

    @property
    def encoded_slope(self) -> int:
        """The integer factor of a fixed-point x."""
        return self.slope


Piece = Linear | FourierSeries


@dataclass(frozen=True)
class Piecewise:
    """Pieces between ascending thresholds, one more than these; at most one of them is a series."""

    thresholds: tuple[float, ...]
    pieces: tuple[Piece, ...]

    @property
    def nonzero_intervals(self) -> tuple[int, ...]:
        """The intervals on which the function is not zero."""
        return tuple(number for number, piece in enumerate(self.pieces) if piece != Linear())

    @property
    def series(self) -> FourierSeries | None:
        return next((piece for piece in self.pieces if isinstance(piece, FourierSeries)), None)


RELU = Piecewise(thresholds=(0.0,), pieces=(Linear(), Linear(slope=1)))


def selection_masks(length: int, function: Piecewise) -> Correlation:
    """Return the correlation of a mask r with its digits' tables and its top bit, and of products with random bits.

    For each piece that is not zero: a bit p, p r, and p times r's Fourier basis.
    """
    pieces = _nonzero_pieces(function)

    def derive(r: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        values = (value for bit, piece in zip(p, pieces, strict=True) for value in _dependent_values(r, bit, piece))
        return *comparison.build_digit_tables(r, comparison.NARROW), *values

    random_parts = TensorSpec((length,)), TensorSpec((len(pieces), length), 1, torch.uint8)
    products = (part for piece in pieces for part in _dependent_specs(length, piece))
    return Correlation(random_parts, (*comparison.digit_table_specs(length, comparison.NARROW), *products), derive)


def _nonzero_pieces(function: Piecewise) -> list[Piece]:
    return [function.pieces[number] for number in function.nonzero_intervals]


def _dependent_specs(length: int, piece: Piece) -> Iterator[TensorSpec]:
    """Yield the specs of `_dependent_values`."""
    yield from [TensorSpec((length,), dtype=piece.word)] * (2 if piece.slope else 1)
    if isinstance(piece, FourierSeries):
        yield from [TensorSpec((2 * piece.harmonics, length), dtype=piece.word)] * 2


def _dependent_values(r: Tensor, p: Tensor, piece: Piece) -> Iterator[Tensor]:
    """Yield p; p r if the piece has a slope; and of a series r's basis, then p times it."""
    bit, mask = p.to(piece.word), r.to(piece.word)
    yield bit
    if piece.slope:
        yield bit * mask
    if isinstance(piece, FourierSeries):

        def select_basis(mask: Tensor, bit: Tensor) -> tuple[Tensor, Tensor]:
            values = basis(piece, mask)
            return values, bit * values

        yield from blockwise(select_basis, mask, bit)


def evaluate(rt: Runtime, share: Tensor, function: Piecewise) -> Tensor:
    """Return the function of every element, for |x| < 2^15 less its largest threshold.

    1. Take a mask r with its tables, a bit p for each interval, and their products from the dealer
       (`selection_masks`).
    2. Open m = x + r (1 round, 8 bytes).
    3. Compare x with all thresholds at once (`comparison`: 2 rounds, 2 bytes per threshold).
    4. Open z = i ^ p, i the indicator of x in an interval (1 round, 1/8 byte per interval).
    5. i u = p u + z (u - 2 p u): local, since x = m - r, and cos(w x) and sin(w x) are linear in the cosine and the
       sine of w r with public factors.
    6. Truncate the series (1 round, 4 bytes).

    4 rounds, or 5 with step 6. Sources: comparison and selection are ours; the masked series is SHAFT's (NDSS 2025).
    """
    flat = share.reshape(-1)
    r, p, table, top, *dependent = rt.correlated(selection_masks(len(flat), function))
    (m,) = rt.reveal(flat + r)
    inside = comparison.boolean_interval_bits(rt, m.to(comparison.NARROW), table, top, function.thresholds)
    z = rt.reveal_bits(inside[list(function.nonzero_intervals)] ^ p, 1)
    lines, *curve = blockwise(partial(_select_pieces, rt, function), m, flat, z, *dependent)
    if function.series:
        lines += truncate_series(rt, curve[0], function.series)
    return lines.view(share.shape)


def _select_pieces(
    rt: Runtime, function: Piecewise, m: Tensor, share: Tensor, z: Tensor, *dependent: Tensor
) -> tuple[Tensor, ...]:
    """Return the sum of all selected lines, and the selected series, if any, in its own fixed point: local."""
    remaining, lines, curve = iter(dependent), torch.zeros_like(share), []
    for bit, piece in zip(z, _nonzero_pieces(function), strict=True):
        value = _evaluate_piece(rt, piece, m.to(piece.word), share.to(piece.word), bit.to(piece.word), remaining)
        if isinstance(piece, FourierSeries):
            curve.append(value)
        else:
            lines = lines + value
    return lines, *curve


def _evaluate_piece(
    rt: Runtime, piece: Piece, m: Tensor, share: Tensor, z: Tensor, dependent: Iterator[Tensor]
) -> Tensor:
    """Return i times the piece's value u, p u + z (u - 2 p u), taking the piece's `dependent` parts: local."""
    p, one = next(dependent), round(piece.constant * piece.encoded_one)
    value: Tensor | int = one if rt.rank == 0 else 0
    selected = p * one
    if piece.slope:
        value = share * piece.encoded_slope + value
        selected += (m * p - next(dependent)) * piece.encoded_slope
    if isinstance(piece, FourierSeries):
        value = torch.zeros_like(m) + value
        rows = zip(public_coefficients(piece, m), next(dependent), next(dependent), strict=True)
        for coefficient, basis_row, selected_row in rows:
            value.addcmul_(coefficient, basis_row)
            selected.addcmul_(coefficient, selected_row)
    return torch.addcmul(selected, z, value - 2 * selected)


EXTRA_FRACTION_BITS = 24
"""Further bits of fraction of polynomials: coefficients of high powers are small."""
Polynomial = Mapping[int, float]
"""Coefficients by powers, of 0, 1, 2, 3, 4 and 6."""


def evaluate_polynomials(rt: Runtime, x: Tensor, thresholds: Sequence[float], pieces: Sequence[Polynomial]) -> Tensor:
    """Return a polynomial per interval between ascending thresholds; an empty one is zero and costs nothing.

    1. Compare with all thresholds at once: a bit for each interval (4 rounds).
    2. x^2, x^3 and x^4, x^6, each truncated (6 rounds, 72 bytes).
    3. The polynomials, with `EXTRA_FRACTION_BITS` more bits of fraction: local.
    4. Multiply each by its bit and add up (1 round, 16 bytes each); truncate (1 round, 8 bytes).

    12 rounds; 88 bytes, 2 1/8 per threshold and 16 per piece that is not zero. Where a power leaves the ring, its
    piece's bit is zero.
    """
    bits = interval_bits(rt, x, thresholds)
    powers = _truncated_powers(rt, x)
    nonzero = [number for number, piece in enumerate(pieces) if piece]
    values = torch.stack([_combine_powers(rt, powers, pieces[number]) for number in nonzero])
    return truncate(rt, beaver.multiply(rt, bits[nonzero], values).sum(0), EXTRA_FRACTION_BITS)


def _truncated_powers(rt: Runtime, x: Tensor) -> dict[int, Tensor]:
    """Return x, x^2, x^3, x^4 and x^6 by power: 6 rounds, 72 bytes per element."""
    square = truncate(rt, beaver.square(rt, x), FRACTION_BITS)
    cube, fourth = truncate(rt, beaver.multiply(rt, torch.stack([x, square]), square), FRACTION_BITS)
    return {1: x, 2: square, 3: cube, 4: fourth, 6: truncate(rt, beaver.square(rt, cube), FRACTION_BITS)}


def _combine_powers(rt: Runtime, powers: Mapping[int, Tensor], piece: Polynomial) -> Tensor:
    """Return a polynomial with FRACTION_BITS + EXTRA_FRACTION_BITS bits of fraction: local."""
    constant = round(piece.get(0, 0.0) * 2 ** (FRACTION_BITS + EXTRA_FRACTION_BITS)) if rt.rank == 0 else 0
    total = torch.full_like(powers[1], constant)
    for power, coefficient in piece.items():
        if power:
            total = total + powers[power] * round(coefficient * 2**EXTRA_FRACTION_BITS)
    return total
