"""x / (1 + exp(-x))."""

from typing import Any

from pi_sim.mpc.kernels.local import on_share
from pi_sim.mpc.kernels.registry import FITTING, Domain, kernel, magnitude
from pi_sim.mpc.primitives.function import Function, Piece
from pi_sim.mpc.primitives.piecewise import evaluate

CURVE = Piece(
    22.4802517,
    0.5,
    cosines=(
        *(-38.7930618, 30.9709198, -25.1601083, 17.948518, -11.8505775, 6.844292),
        *(-3.5347868, 1.5327681, -0.5595184, 0.1488532, -0.0271611),
    ),
)
"""x sigmoid(x) on [-10, 10], of period 32: x/2 and an even function, to 0.0005."""
SILU = Function(thresholds=(-9.0, 9.0), pieces=(Piece(), CURVE, Piece(slope=1.0)), period=21)


@kernel("silu", "sigmoid", Domain("|input|", magnitude, 0, 490))
def sigmoid(x: Any) -> Any:
    """x sigmoid(x), the sigmoid as in `tanh` (23 rounds), then one product.

    24 rounds, 392 bytes and 240 offline per element. Right to 0.008 for |x| up to 490: to 0.004 below 100; from 510 on
    the sigmoid's exponential leaves its own domain. Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    return x * x.sigmoid()


@kernel("silu", "fourier", FITTING)
def fourier(x: Any) -> Any:
    """0, x/2 plus a cosine series, or x, see `pi_sim.mpc.primitives.piecewise`: right to 0.0015 everywhere.

    5 rounds, 28 bytes and 496 offline per element.
    Source: the masked series is SHAFT's (NDSS 2025); the pieces and their comparison are ours.
    """
    return on_share(x, lambda share: evaluate(share, SILU))
