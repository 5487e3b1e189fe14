"""The error function, by which Derf takes the place of a norm."""

import math
from typing import Any

from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import FITS_32_BIT, Domain, kernel, magnitude
from pi_sim.mpc.primitives import bounded
from pi_sim.mpc.primitives.function import FourierSeries, Linear, Piecewise
from pi_sim.mpc.primitives.piecewise import evaluate

ERF_SERIES = FourierSeries(
    period_bits=20,
    fraction_bits=29,
    basis_bits=14,
    low=-2.0,
    sines=(
        *(0.5602878, 0.661829, 0.1566934, -0.2083753, 0.1680019),
        *(0.2592944, -0.3635013, 0.2791872, -0.1076403, 0.023671),
    ),
)
"""erf(x) on [-3, 3], of period 16, to 0.00001."""
ERF = Piecewise(thresholds=(-3.0, 3.0), pieces=(Linear(-1.0), ERF_SERIES, Linear(1.0)))


@kernel("erf", "taylor", Domain("|input|", magnitude, 0, 0.6))
def erf_taylor(x: Any) -> Any:
    """Stock CrypTen: the Taylor series of `functions.erf_iterations` terms, its odd powers miscomputed (see `gelu`).

    34 rounds, 376 bytes and 272 offline per element. Right to 0.015 for |x| up to 0.6, off by 177 at 2.
    """
    return x.erf()


@kernel("erf", "tanh-form", Domain("|input|", magnitude, 0, 13))
def erf_tanh_form(x: Any) -> Any:
    """tanh(2 / sqrt(pi) (x + 0.08943 x^3)), the approximation that GELU's tanh form is made of.

    25 rounds, 400 bytes and 248 offline per element: the square, one product, and `tanh`. Right to 0.006 for |x| up to
    13, where the tanh's own domain ends; the approximation itself is right to 0.0004.
    """
    cubic = x * x.square()
    return ((x + cubic * 0.08943) * (2 / math.sqrt(math.pi))).tanh()


@kernel("erf", "fourier", FITS_32_BIT)
def erf_fourier(x: Any) -> Any:
    """-1, a sine series, or 1, see `pi_sim.mpc.primitives.piecewise`: right to 0.0002 everywhere.

    5 rounds, 16 7/8 bytes and 227 offline per element.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(share, ERF))


@kernel("erf", "fourier-bounded", Domain("|input|", magnitude, 0, 3))
def erf_fourier_bounded(x: Any) -> Any:
    """The sine series of `fourier` alone, one masked opening, see `bounded`: right to 0.0002 for |x| up to 3.

    1 round, 8 bytes and 160 offline per element. Nothing keeps x within the domain: beyond, it swings to the other
    sign. Source: SHAFT (NDSS 2025); the coefficients are ours.
    SHAFT itself takes the first five terms of the plain series of erf on [-8, 8], which are off by up to 0.07 below 5.
    """
    return map_share(x, lambda share: bounded.evaluate_local_truncation(share, ERF_SERIES))
