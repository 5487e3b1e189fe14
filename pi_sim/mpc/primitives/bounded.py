"""A short Fourier series as SHAFT computes it: in words of 64 bits, truncated by each party alone."""

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.primitives.function import FRACTION_BITS, FourierSeries
from pi_sim.mpc.primitives.series import FourierBasis, combine_basis
from pi_sim.mpc.primitives.truncation import truncate_locally


def evaluate_local_truncation(share: Tensor, curve: FourierSeries) -> Tensor:
    """The series of every element, which must lie within its period; its slope must be zero.

    1. Take shares of a random r and of the cosines and sines of its multiples from the dealer.
    2. Open m = x + r (1 round, 8 bytes).
    3. cos(w (m - r)) and sin(w (m - r)) are linear in what is shared: local.
    4. Truncate, each party its own share: local, and wrong with probability |y| / 2^(64 - fraction).

    1 round, 8 bytes per element, 16 offline for each harmonic. Source: SHAFT (NDSS 2025).
    """
    flat = share.reshape(-1)
    r, dealt = session.correlated(FourierBasis(len(flat), curve, torch.int64))
    (m,) = session.reveal(flat + r)
    return truncate_locally(combine_basis(curve, m, dealt), curve.fraction_bits - FRACTION_BITS).view(share.shape)
