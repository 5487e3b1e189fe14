"""The hyperbolic tangent, by which DyT takes the place of a norm."""

from typing import Any

from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import FITS_32_BIT, Domain, kernel, magnitude
from pi_sim.mpc.primitives import bounded
from pi_sim.mpc.primitives.function import FourierSeries, Linear, Piecewise
from pi_sim.mpc.primitives.piecewise import evaluate

TANH_SERIES = FourierSeries(
    period_bits=20,
    fraction_bits=29,
    basis_bits=14,
    low=-2.0,
    sines=(
        *(1.3161306, -0.1004501, 0.1523934, 0.4015562, -0.5858833, 0.7577069),
        *(-0.6600161, 0.4924206, -0.280205, 0.1302678, -0.0415708, 0.0088742),
    ),
)
"""tanh(x) on [-4.6, 4.6], of period 16, to 0.0001."""
TANH = Piecewise(thresholds=(-4.6, 4.6), pieces=(Linear(-1.0), TANH_SERIES, Linear(1.0)))


@kernel("tanh", "sigmoid", Domain("|input|", magnitude, 0, 245))
def tanh_sigmoid(x: Any) -> Any:
    """2 sigmoid(2 x) - 1, stock CrypTen.

    1. Take the sign of 2 x (8 rounds) and multiply by it (1 round): |2 x|.
    2. exp(-|2 x|) = (1 - |2 x| / 256)^256 by 8 squarings (8 rounds).
    3. Reciprocal of 1 + exp(-|2 x|) by 3 Newton steps from 0.75: the first is local, the others take a square and a
       product each (4 rounds).
    4. Choose it or one minus it by the sign, in two products (2 rounds).

    23 rounds, 376 bytes and 232 offline per element. Right to 0.006, worst near zero, for |x| up to 245; from 256 on
    the exponential leaves its own domain and comes back huge. Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    return x.tanh()


@kernel("tanh", "fourier", FITS_32_BIT)
def tanh_fourier(x: Any) -> Any:
    """-1, a sine series, or 1, see `pi_sim.mpc.primitives.piecewise`: right to 0.0004 everywhere.

    5 rounds, 16 7/8 bytes and 259 offline per element.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(share, TANH))


@kernel("tanh", "fourier-bounded", Domain("|input|", magnitude, 0, 4.6))
def tanh_fourier_bounded(x: Any) -> Any:
    """The sine series of `fourier` alone, one masked opening, see `bounded`: right to 0.0004 for |x| up to 4.6.

    1 round, 8 bytes and 192 offline per element. Nothing keeps x within the domain: beyond, it swings to the other
    sign. Source: SHAFT (NDSS 2025); the coefficients are ours.
    """
    return map_share(x, lambda share: bounded.evaluate_local_truncation(share, TANH_SERIES))
