"""min(max(x, low), high), by which DyT with hardtanh takes the place of a norm."""

from typing import Any

from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import FITS_32_BIT, kernel
from pi_sim.mpc.primitives.function import Linear, Piecewise
from pi_sim.mpc.primitives.piecewise import evaluate


@kernel("clamp", "kogge-stone")
def clamp_kogge_stone(x: Any, *, low: float, high: float) -> Any:
    """low + relu(x - low) - relu(x - high), stock CrypTen: both ReLUs at once, see `relu`.

    9 rounds, 464 bytes and 240 offline per element. Exact. Source: CrypTen (arXiv 2109.00984), section 4.2.
    """
    return x.hardtanh(low, high)


@kernel("clamp", "masked", FITS_32_BIT)
def clamp_masked(x: Any, *, low: float, high: float) -> Any:
    """Both ends compared with at once, see `pi_sim.mpc.primitives.piecewise`: exact.

    4 rounds, 12 7/8 bytes and 63 offline per element.
    """
    ends = Piecewise((low, high), (Linear(low), Linear(slope=1), Linear(high)))
    return map_share(x, lambda share: evaluate(share, ends))
