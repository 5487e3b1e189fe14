"""A short Fourier series as SHAFT computes it: in words of 64 bits, truncated by each party alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.primitives.function import FRACTION, Curve
from pi_sim.mpc.primitives.truncation import truncate_locally
from pi_sim.mpc.primitives.waves import factors, waves


@dataclass(frozen=True)
class Waves(Correlation):
    """r, and the cosines and sines of its multiples."""

    length: int
    curve: Curve

    @property
    def drawn(self) -> tuple[Part, ...]:
        return (Part((self.length,)),)

    @property
    def derived(self) -> tuple[Part, ...]:
        return (Part((2 * self.curve.harmonics, self.length)),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (waves(self.curve, values[0].to(torch.int32)).to(torch.int64),)


def evaluate(share: Tensor, curve: Curve) -> Tensor:
    """The series of every element, which must lie within its period; its slope must be zero.

    1. Take shares of a random r and of the cosines and sines of its multiples from the dealer.
    2. Open m = x + r (1 round, 8 bytes).
    3. cos(w (m - r)) and sin(w (m - r)) are linear in what is shared: local.
    4. Truncate, each party its own share: local, and wrong with probability |y| / 2^(64 - fraction).

    1 round, 8 bytes per element, 16 offline for each harmonic. Source: SHAFT (NDSS 2025).
    """
    flat = share.reshape(-1)
    r, dealt = session.deal(Waves(len(flat), curve))
    (m,) = session.reveal(flat + r)
    total = torch.full_like(m, round(curve.constant * curve.unit) if session.rank() == 0 else 0)
    for factor, wave in zip(factors(curve, m.to(torch.int32)), dealt, strict=True):
        total += factor * wave
    return truncate_locally(total, curve.fraction - FRACTION).view(share.shape)
