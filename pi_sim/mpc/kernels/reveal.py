"""The logits are opened to the client alone."""

from typing import Any

from torch import Tensor

from pi_sim.mpc.kernels.registry import UNIVERSAL, kernel

CLIENT = 1
"""Party 0 is the server."""


@kernel("reveal", UNIVERSAL)
def reveal(x: Any) -> Tensor | None:
    """The server sends its share of x: plain values at the client, None at the server. 1 round, 8 |x| bytes.

    Decoded here, because CrypTen's decoder is off by one for some negative numbers just above an integer.
    """
    ring = x.reveal(dst=CLIENT)
    return None if ring is None else ring.double().div(x.encoder.scale).float().cpu()
