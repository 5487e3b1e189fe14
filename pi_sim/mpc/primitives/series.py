"""A short Fourier series of a secret that is known to lie on an interval: one opening, no comparison."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec
from pi_sim.mpc.primitives.function import FRACTION_BITS, FourierSeries
from pi_sim.mpc.primitives.truncation import lift_u32_to_u64
from pi_sim.mpc.primitives.waves import basis, public_coefficients


@dataclass(frozen=True)
class FourierBasis(Correlation):
    """r, and the cosines and sines of its multiples, all in words of `word`."""

    length: int
    series: FourierSeries
    word: torch.dtype

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec((self.length,), dtype=self.word),)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec((2 * self.series.harmonics, self.length), dtype=self.word),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return (basis(self.series, values[0].to(torch.int32)).to(self.word),)


def evaluate(share: Tensor, curve: FourierSeries) -> Tensor:
    """The series of every element; its slope must be zero.

    1. Take shares of a random r and of the cosines and sines of its multiples from the dealer.
    2. Open m = x + r, of which a period's bits matter (1 round, 4 bytes).
    3. cos(w (m - r)) and sin(w (m - r)) are linear in what is shared: local.
    4. Truncate (1 round, 4 bytes).

    2 rounds, 8 bytes per element. Source: SHAFT (NDSS 2025).
    """
    flat = share.reshape(-1).to(curve.word)
    r, dealt = session.correlated(FourierBasis(len(flat), curve, curve.word))
    m = session.reveal_u32(flat + r)
    return truncate_series(combine_basis(curve, m, dealt), curve).view(share.shape)


def combine_basis(curve: FourierSeries, m: Tensor, dealt: Tensor) -> Tensor:
    """Shares of the series at m - r, of the opened m and the shared waves of r, before truncation: local."""
    total = torch.full_like(m, round(curve.constant * curve.encoded_one) if session.rank() == 0 else 0)
    for factor, wave in zip(public_coefficients(curve, m.to(torch.int32)), dealt, strict=True):
        total.addcmul_(factor.to(m.dtype), wave)
    return total


def truncate_series(total: Tensor, curve: FourierSeries) -> Tensor:
    """A curve's values in words of 64 bits and the fraction of values."""
    return lift_u32_to_u64(total, curve.fraction_bits - FRACTION_BITS, round(curve.low * curve.encoded_one))
