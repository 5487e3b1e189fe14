"""min(max(x, low), high), by which DyT with hardtanh takes the place of a norm."""

from typing import Any

from pi_sim.mpc.kernels.registry import kernel


@kernel("clamp", "kogge-stone")
def kogge_stone(x: Any, *, low: float, high: float) -> Any:
    """low + relu(x - low) - relu(x - high), stock CrypTen: both ReLUs at once, see `relu`.

    9 rounds, 464 bytes and 240 offline per element. Exact. Source: CrypTen (arXiv 2109.00984), section 4.2.
    """
    return x.hardtanh(low, high)
