"""A short Fourier series of a secret that is known to lie on an interval: one opening, no comparison."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.primitives.function import FINE, FRACTION, WAVE, Piece
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.primitives.waves import UNIT, combine, waves


@dataclass(frozen=True)
class Waves(Correlation):
    """r, and the cosines and sines of its multiples."""

    shape: Shape
    period: int
    harmonics: int

    @property
    def drawn(self) -> tuple[Part, ...]:
        return (Part(self.shape),)

    @property
    def derived(self) -> tuple[Part, ...]:
        return (Part((2 * self.harmonics, *self.shape)),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        cosines, sines = waves(values[0], self.period, self.harmonics)
        return (torch.stack([*cosines, *sines]) >> (UNIT - WAVE),)


def evaluate(share: Tensor, piece: Piece, period: int) -> Tensor:
    """The series, of period 2^period in units of the ring, for every element; its slope must be zero.

    1. Take shares of a random r and of the cosines and sines of its multiples from the dealer.
    2. Open m = x + r (1 round, 8 bytes).
    3. cos(w (m - r)) and sin(w (m - r)) are linear in what is shared: local.
    4. Truncate (1 round, 8 bytes).

    2 rounds, 16 bytes per element. Source: SHAFT (NDSS 2025).
    """
    r, dealt = session.deal(Waves(tuple(share.shape), period, piece.harmonics))
    (m,) = session.reveal(share + r)
    total = combine(waves(m, period, piece.harmonics), piece, dealt)
    constant = round(piece.constant * 2 ** (FRACTION + FINE)) if session.rank() == 0 else 0
    return truncate(total + constant, FINE)
