"""In which interval a secret lies, as bits that can be multiplied with public numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.primitives import comparison


@dataclass(frozen=True)
class Bits(Correlation):
    """r with the tables of its digits and its top bit; for each of `count` intervals a bit in both sharings."""

    shape: Shape
    count: int

    @property
    def drawn(self) -> tuple[Part, ...]:
        return Part(self.shape), Part((self.count, *self.shape), 1, torch.uint8)

    @property
    def derived(self) -> tuple[Part, ...]:
        return *comparison.parts(self.shape), Part((self.count, *self.shape))

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        r, p = values
        return *comparison.derive(r), p.to(torch.int64)


def indicators(share: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Shares in the ring of 0 or 1 for each interval between ascending thresholds: (T + 1, ...), no fraction.

    The masked comparison, and one more opening of z = i ^ p: i = z + (1 - 2 z) p.
    4 rounds; 8 bytes, and 6 for each threshold.
    """
    r, p, table, top, ring_p = session.deal(Bits(tuple(share.shape), len(thresholds) + 1))
    (m,) = session.reveal(share + r)
    opened = torch.stack(session.reveal_bits(*(comparison.intervals(m, table, top, thresholds) ^ p))).to(torch.int64)
    return opened * (1 - session.rank()) + (1 - 2 * opened) * ring_p
