"""x / (1 + exp(-x))."""

from typing import Any

from pi_sim.mpc.kernels.fourier import relu_plus_series
from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import FITS_32_BIT, Domain, kernel, magnitude
from pi_sim.mpc.primitives.function import FourierSeries, Linear, Piecewise
from pi_sim.mpc.primitives.piecewise import evaluate

SILU_SERIES = FourierSeries(
    period_bits=21,
    fraction_bits=27,
    basis_bits=13,
    low=-1.0,
    constant=2.9838583,
    slope=0.5,
    cosines=(
        *(-1.5941958, -1.3214075, 0.3369536, -0.346773, 0.0627332, -0.1773483),
        *(0.1915682, -0.2286616, 0.1659224, -0.1001885, 0.037766, -0.0100509),
    ),
)
"""x sigmoid(x) on [-9, 9], of period 32: x/2 and an even function, to 0.0002."""
SILU = Piecewise(thresholds=(-9.0, 9.0), pieces=(Linear(), SILU_SERIES, Linear(slope=1)))

SILU_MINUS_RELU_SERIES = FourierSeries(
    period_bits=20,
    fraction_bits=32,
    basis_bits=16,
    low=-1.0,
    sines=(
        *(-0.1299222, -0.1219513, -0.0743456, -0.039412, -0.0216205, -0.0117684),
        *(-0.0074477, -0.004438, -0.0033278, -0.0020776, -0.0018038, -0.0011212),
    ),
)
"""|x| (sigmoid(|x|) - 1), by which SiLU is below ReLU, on [-8, 8], of period 16: plain Fourier series, to 0.0053."""


@kernel("silu", "sigmoid", Domain("|input|", magnitude, 0, 490))
def silu_sigmoid(x: Any) -> Any:
    """x sigmoid(x), the sigmoid as in `tanh` (23 rounds), then one product.

    24 rounds, 392 bytes and 240 offline per element. Right to 0.008 for |x| up to 490: to 0.004 below 100; from 510 on
    the sigmoid's exponential leaves its own domain. Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    return x * x.sigmoid()


@kernel("silu", "fourier", FITS_32_BIT)
def silu_fourier(x: Any) -> Any:
    """0, x/2 plus a cosine series, or x, see `pi_sim.mpc.primitives.piecewise`: right to 0.0012 everywhere.

    5 rounds, 16 3/4 bytes and 263 offline per element.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return map_share(x, lambda share: evaluate(share, SILU))


@kernel("silu", "fourier-shaft")
def silu_fourier_shaft(x: Any) -> Any:
    """relu(x) and, for |x| < 8, a series of |x| of 12 terms, see `fourier.beside_relu`: right to 0.006 everywhere.

    19 rounds, 472 bytes and 432 offline per element.
    Source: SHAFT (NDSS 2025) and its code, `approximations.py`, which prints the coefficients to four digits.
    """
    return relu_plus_series(x, SILU_MINUS_RELU_SERIES)
