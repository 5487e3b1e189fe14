"""Functions by pieces that are polynomials, each chosen by secret bits."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.primitives import products
from pi_sim.mpc.primitives.function import FRACTION_BITS
from pi_sim.mpc.primitives.indicators import interval_bits
from pi_sim.mpc.primitives.truncation import truncate

EXTRA_FRACTION_BITS = 24
"""Further bits that polynomials are computed with: coefficients of high powers are small."""
Polynomial = Mapping[int, float]
"""Coefficients by powers, of 0, 1, 2, 3, 4 and 6."""


def evaluate_polynomials(x: Tensor, thresholds: Sequence[float], pieces: Sequence[Polynomial]) -> Tensor:
    """Between ascending thresholds a polynomial each, one more than these; without the pieces that are zero.

    1. Compare with all thresholds at once: a bit for each interval (4 rounds).
    2. x^2, x^3 and x^4, x^6, each truncated (6 rounds, 72 bytes).
    3. The polynomials, with FINE more bits of fraction: local.
    4. Multiply each by its bit and add up (1 round, 16 bytes for each); truncate (1 round, 8 bytes).

    12 rounds; 88 bytes, 2 3/8 for each threshold and 16 for each piece that is not zero. Where a power leaves the
    ring, its piece's bit is zero.
    """
    bits = interval_bits(x, thresholds)
    powers = _truncated_powers(x)
    chosen = [number for number, piece in enumerate(pieces) if piece]
    values = torch.stack([_combine_powers(powers, pieces[number]) for number in chosen])
    return truncate(products.multiply(bits[chosen], values).sum(0), EXTRA_FRACTION_BITS)


def _truncated_powers(x: Tensor) -> dict[int, Tensor]:
    square = truncate(products.square(x), FRACTION_BITS)
    cube, fourth = truncate(products.multiply(torch.stack([x, square]), square), FRACTION_BITS)
    return {1: x, 2: square, 3: cube, 4: fourth, 6: truncate(products.square(cube), FRACTION_BITS)}


def _combine_powers(powers: Mapping[int, Tensor], piece: Polynomial) -> Tensor:
    """FRACTION + FINE bits of fraction."""
    constant = round(piece.get(0, 0.0) * 2 ** (FRACTION_BITS + EXTRA_FRACTION_BITS)) if session.rank() == 0 else 0
    total = torch.full_like(powers[1], constant)
    for power, coefficient in piece.items():
        if power:
            total = total + powers[power] * round(coefficient * 2**EXTRA_FRACTION_BITS)
    return total
