"""Faithful truncation: the product of two fixed-point numbers back to the fraction of one."""

from dataclasses import dataclass

from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part

OFFSET = 2**62
"""Makes numbers of less than 2^62 in size positive."""


@dataclass(frozen=True)
class Truncation(Correlation):
    """r; r without its last `fraction` bits, and its top bit."""

    shape: Shape
    fraction: int

    @property
    def drawn(self) -> tuple[Part, ...]:
        return (Part(self.shape),)

    @property
    def derived(self) -> tuple[Part, ...]:
        return Part(self.shape), Part(self.shape)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        (r,) = values
        return logical_shift(r, self.fraction), logical_shift(r, 63)


def truncate(share: Tensor, fraction: int) -> Tensor:
    """x / 2^fraction, rounded down or up, for every |x| < 2^62: no local truncation's rare, ruinous errors.

    1. Take shares of a random r, of R = r >> fraction and of its top bit T from the dealer.
    2. Open m = x + 2^62 + r.
    3. Its top bit is clear where r's is set exactly if the sum wrapped around:
       y = (m >> fraction) - 2^(62 - fraction) - R + (1 - top(m)) T 2^(64 - fraction).

    1 round, 8 bytes and 16 offline per element. The result is floor(x / 2^fraction) or one more.
    """
    r, shifted, top = session.deal(Truncation(tuple(share.shape), fraction))
    (m,) = session.reveal(share + r + (OFFSET if session.rank() == 0 else 0))
    wrapped = (1 - logical_shift(m, 63)) * top * (1 << 64 - fraction)
    public = logical_shift(m, fraction) - OFFSET // 2**fraction
    return wrapped - shifted + (public if session.rank() == 0 else 0)


def logical_shift(word: Tensor, places: int) -> Tensor:
    """The word's bits moved to the right, zeros coming in at the left; torch's own shift copies the sign."""
    return (word >> places) & ((1 << 64 - places) - 1)
