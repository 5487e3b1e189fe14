"""One-hot vectors of secret numbers, made from a dealer's by one short opening."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec


@dataclass(frozen=True)
class OneHot(Correlation):
    """r, and the one-hot vector of r mod `size`, a power of two: only then is a sum of shares right modulo it."""

    shape: Shape
    size: int

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(self.shape),)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec((*self.shape, self.size)),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        places = torch.arange(self.size, device=values[0].device)
        return ((places == (values[0] & (self.size - 1)).unsqueeze(-1)).long(),)


def onehot_indices(onehot: Tensor) -> Tensor:
    """Shares of the numbers that one-hot vectors (..., V) stand for: a public linear map of theirs, local."""
    return (onehot * torch.arange(onehot.shape[-1], device=onehot.device)).sum(-1)


def next_power_of_two(length: int) -> int:
    """The least that is not below a length."""
    return 1 << (length - 1).bit_length()


def rotate_onehot(onehot: Tensor) -> Tensor:
    """Fresh shares of one-hot vectors (..., V), made from shares of the numbers that they stand for.

    1. Take shares of a random r and of the one-hot vector of r mod 2^k from the dealer, V <= 2^k.
    2. Open x - r (1 round, 8 bytes), x the number; its last k bits say how far x is from r.
    3. Entry j is the dealer's entry j - (x - r) mod 2^k: local.

    8 2^k bytes offline for each vector.
    """
    x, length = onehot_indices(onehot), onehot.shape[-1]
    size = next_power_of_two(length)
    r, vectors = session.correlated(OneHot(tuple(x.shape), size))
    (distance,) = session.reveal(x - r)
    places = torch.arange(length, device=onehot.device) - distance.unsqueeze(-1)
    return vectors.gather(-1, places & (size - 1))
