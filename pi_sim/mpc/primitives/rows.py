"""1 / v and 1 / sqrt(v) of positive numbers, of which there is one in a row: normalised, then a short series."""

from torch import Tensor

from pi_sim.mpc.primitives import products, series
from pi_sim.mpc.primitives.function import FRACTION, Piece
from pi_sim.mpc.primitives.indicators import indicators
from pi_sim.mpc.primitives.truncation import truncate

RECIPROCAL = Piece(
    0.8583704,
    cosines=(0.69506, 0.5667436, 0.2906258, 0.06331, 0.0027377),
    sines=(0.6515244, 0.3096162, -0.0026545, -0.0451098, -0.009115),
)
"""1 / x on [1, 2], of period 4, to 0.000005."""
INVERSE_ROOT = Piece(
    0.8153475,
    cosines=(0.449959, 0.3551793, 0.4070486, 0.1755811, -0.0622185, -0.0611538, -0.0092815, 0.000553),
    sines=(0.1206131, 0.1324328, -0.057864, -0.2640399, -0.1579421, -0.0111174, 0.0108845, 0.0014906),
)
"""1 / sqrt(x) on [1, 4], of period 8, to 0.000005."""
SMALLEST, LARGEST = -6, 14
"""Powers of 4 between which `inverse_root` normalises."""


def reciprocal(v: Tensor, most: int) -> Tensor:
    """1 / v for 1 <= v < 2^most, most at least 2, with 16 bits of fraction.

    1. Compare v with 2, 4, ..., 2^(most - 1), all at once: shares of c = 2^-j for v in [2^j, 2^(j + 1)) (4 rounds).
    2. t = v c, in [1, 2) (1 round), truncated (1 round).
    3. y = 1 / t by a series (2 rounds).
    4. 1 / v = y c (1 round), truncated (1 round).

    10 rounds; 8 + 6 (most - 1) + 64 bytes.
    """
    bits = indicators(v, [2.0**power for power in range(1, most)])
    scale = _weigh(bits, [2.0**-power for power in range(most)], FRACTION)
    near = truncate(products.product(v, scale), FRACTION)
    return truncate(products.product(series.evaluate(near, RECIPROCAL, FRACTION + 2), scale), FRACTION)


def inverse_root(v: Tensor, factor: float) -> Tensor:
    """A public factor of up to 1 times 1 / sqrt(v), for 4^-6 <= v < 4^15, with 32 bits of fraction.

    1. Compare v with the powers of 4, all at once: shares of c = 2^-j and c^2 for v in [4^j, 4^(j + 1)) (4 rounds).
    2. t = v c^2, in [1, 4) (1 round), truncated (1 round).
    3. y = 1 / sqrt(t) by a series (2 rounds).
    4. 1 / sqrt(v) = y c (1 round), not truncated: for large v all of its bits lie behind the 16th.

    9 rounds; 8 + 6 * 20 + 56 bytes.
    """
    powers = range(SMALLEST, LARGEST + 1)
    bits = indicators(v, [4.0**power for power in powers[1:]])
    square = _weigh(bits, [4.0**-power for power in powers], 2 * FRACTION)
    near = truncate(products.product(v, square), 2 * FRACTION)
    scale = _weigh(bits, [2.0**-power for power in powers], FRACTION)
    return products.product(series.evaluate(near, INVERSE_ROOT.times(factor), FRACTION + 3), scale)


def _weigh(bits: Tensor, weights: list[float], fraction: int) -> Tensor:
    """The weight of the interval whose bit is set."""
    total = sum(bit * round(weight * 2**fraction) for bit, weight in zip(bits, weights, strict=True))
    assert isinstance(total, Tensor)
    return total
