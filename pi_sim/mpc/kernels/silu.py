"""x / (1 + exp(-x))."""

from typing import Any

from pi_sim.mpc.kernels.registry import Domain, kernel, magnitude


@kernel("silu", "sigmoid", Domain("|input|", magnitude, 0, 490))
def sigmoid(x: Any) -> Any:
    """x sigmoid(x), the sigmoid as in `tanh` (23 rounds), then one product.

    24 rounds, 392 bytes and 240 offline per element. Right to 0.008 for |x| up to 490: to 0.004 below 100; from 510 on
    the sigmoid's exponential leaves its own domain. Source: CrypTen (arXiv 2109.00984), section 4.4.
    """
    return x * x.sigmoid()
