"""A short Fourier series of a secret that is known to lie on an interval: one opening, no comparison."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.primitives.function import FRACTION, Curve
from pi_sim.mpc.primitives.truncation import lift
from pi_sim.mpc.primitives.waves import factors, waves


@dataclass(frozen=True)
class Waves(Correlation):
    """r, and the cosines and sines of its multiples, all in words of `word`."""

    length: int
    series: Curve
    word: torch.dtype

    @property
    def random_parts(self) -> tuple[Part, ...]:
        return (Part((self.length,), dtype=self.word),)

    @property
    def dependent_parts(self) -> tuple[Part, ...]:
        return (Part((2 * self.series.harmonics, self.length), dtype=self.word),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (waves(self.series, values[0].to(torch.int32)).to(self.word),)


def evaluate(share: Tensor, curve: Curve) -> Tensor:
    """The series of every element; its slope must be zero.

    1. Take shares of a random r and of the cosines and sines of its multiples from the dealer.
    2. Open m = x + r, of which a period's bits matter (1 round, 4 bytes).
    3. cos(w (m - r)) and sin(w (m - r)) are linear in what is shared: local.
    4. Truncate (1 round, 4 bytes).

    2 rounds, 8 bytes per element. Source: SHAFT (NDSS 2025).
    """
    flat = share.reshape(-1).to(curve.word)
    r, dealt = session.deal(Waves(len(flat), curve, curve.word))
    m = session.reveal_short(flat + r)
    return truncated(summed(curve, m, dealt), curve).view(share.shape)


def summed(curve: Curve, m: Tensor, dealt: Tensor) -> Tensor:
    """Shares of the series at m - r, of the opened m and the shared waves of r, before truncation: local."""
    total = torch.full_like(m, round(curve.constant * curve.encoded_one) if session.rank() == 0 else 0)
    for factor, wave in zip(factors(curve, m.to(torch.int32)), dealt, strict=True):
        total.addcmul_(factor.to(m.dtype), wave)
    return total


def truncated(total: Tensor, curve: Curve) -> Tensor:
    """A curve's values in words of 64 bits and the fraction of values."""
    return lift(total, curve.fraction_bits - FRACTION, round(curve.low * curve.encoded_one))
