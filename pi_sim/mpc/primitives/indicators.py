"""In which interval a secret lies, as bits that can be multiplied with public numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec
from pi_sim.mpc.primitives import comparison


@dataclass(frozen=True)
class IntervalBits(Correlation):
    """r with the tables of its digits and its top bit; for each of `count` intervals a bit in both sharings."""

    length: int
    count: int
    word: torch.dtype

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return TensorSpec((self.length,)), TensorSpec((self.count, self.length), 1, torch.uint8)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return *comparison.digit_table_specs(self.length, self.word), TensorSpec((self.count, self.length))

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        r, p = values
        return *comparison.build_digit_tables(r, self.word), p.to(torch.int64)


def interval_bits(share: Tensor, thresholds: Sequence[float], word: torch.dtype = comparison.NARROW) -> Tensor:
    """Shares in the ring of 0 or 1 for each interval between ascending thresholds: (T + 1, ...), no fraction.

    The masked comparison in words of either length, and one more opening of z = i ^ p: i = z + (1 - 2 z) p.
    4 rounds; 8 bytes, and 2 3/8 for each threshold (5 1/8 in words of 64 bits).
    """
    flat = share.reshape(-1)
    r, p, table, top, ring_p = session.correlated(IntervalBits(len(flat), len(thresholds) + 1, word))
    (m,) = session.reveal(flat + r)
    inside = comparison.boolean_interval_bits(m.to(word), table, top, thresholds)
    z = session.reveal_bits(inside ^ p, 1).to(torch.int64)
    found = z * (1 - session.rank()) + (1 - 2 * z) * ring_p
    return found.view(len(thresholds) + 1, *share.shape)
