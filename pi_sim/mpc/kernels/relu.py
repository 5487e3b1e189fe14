"""max(x, 0)."""

from typing import Any

from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import FITS_32_BIT, kernel
from pi_sim.mpc.primitives.function import RELU
from pi_sim.mpc.primitives.piecewise import evaluate


@kernel("relu", "kogge-stone")
def relu_kogge_stone(x: Any) -> Any:
    """x * (x >= 0), stock CrypTen.

    1. Turn the arithmetic shares into exclusive-or shares: a 64-bit addition of the two parties' shares by a
       Kogge-Stone adder of one AND and six levels of two ANDs each (7 rounds, 26 words).
    2. Turn the sign bit back: open it under a random bit that the dealer gave in both sharings (1 round, 1 word).
    3. Multiply (1 round, 2 words).

    9 rounds, 232 bytes and 120 offline per element. Source: CrypTen (arXiv 2109.00984), section 4.2 and appendix B.
    """
    return x.relu()


@kernel("relu", "masked", FITS_32_BIT)
def relu_masked(x: Any) -> Any:
    """max(x, 0) by one masked opening, see `pi_sim.mpc.primitives.piecewise`: exact.

    4 rounds, 10 3/8 bytes and 40 offline per element.
    Source: ours; its parts are a dealer's tables and Beaver's products.
    """
    return map_share(x, lambda share: evaluate(share, RELU))
