"""Products with public numbers: local, but for what is done about the fraction's new bits."""

from typing import Any

from torch import Tensor

from pi_sim.mpc.kernels.local import map_share
from pi_sim.mpc.kernels.registry import kernel
from pi_sim.mpc.primitives.function import FRACTION_BITS
from pi_sim.mpc.primitives.truncation import truncate


@kernel("scale", "local")
def local_scale(x: Any, *, factor: float) -> Any:
    """A public multiple; each party truncates its own share, see `protocols/README.md` for what that risks."""
    return x * factor


@kernel("scale_by", "local")
def local_scale_by(x: Any, factors: Tensor) -> Any:
    """The product with a public tensor, truncated as in `local_scale`."""
    return x * factors


@kernel("scale", "faithful")
def faithful_scale(x: Any, *, factor: float) -> Any:
    """A public multiple, truncated faithfully: 1 round, 8 bytes and 16 offline per element; none for a whole factor.

    The factor has 16 bits of fraction, as in CrypTen: 0.001 is taken for 66 / 65536, 0.7% more.
    """
    if factor.is_integer():
        return map_share(x, lambda share: share * int(factor))
    return map_share(x, lambda share: truncate(share * round(factor * 2**FRACTION_BITS), FRACTION_BITS))


@kernel("scale_by", "faithful")
def faithful_scale_by(x: Any, factors: Tensor) -> Any:
    """The product with a public tensor, truncated faithfully: 1 round, 8 bytes and 16 offline per element."""
    return map_share(x, lambda share: truncate(share * (factors.double() * 2**FRACTION_BITS).round().long(), FRACTION_BITS))
