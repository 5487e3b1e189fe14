"""One-hot vectors of secret numbers, made from a dealer's by one short opening."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part


@dataclass(frozen=True)
class OneHot(Correlation):
    """r, and the one-hot vector of r mod `size`, a power of two: only then is a sum of shares right modulo it."""

    shape: Shape
    size: int

    @property
    def drawn(self) -> tuple[Part, ...]:
        return (Part(self.shape),)

    @property
    def derived(self) -> tuple[Part, ...]:
        return (Part((*self.shape, self.size)),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        places = torch.arange(self.size, device=values[0].device)
        return ((places == (values[0] & (self.size - 1)).unsqueeze(-1)).long(),)


def rotate(onehot: Tensor) -> Tensor:
    """Fresh shares of one-hot vectors (..., V), made from shares of the numbers that they stand for.

    1. x = <onehot, (0, 1, ...)>: local.
    2. Open x - r under the dealer's r (1 round, 8 bytes); its last k bits, 2^k >= V, say how far x is from r.
    3. Entry j is the dealer's entry j - (x - r) mod 2^k: local.

    8 2^k bytes offline for each vector.
    """
    length = onehot.shape[-1]
    size = 1 << (length - 1).bit_length()
    places = torch.arange(length, device=onehot.device)
    numbers = (onehot * places).sum(-1)
    r, vectors = session.deal(OneHot(tuple(numbers.shape), size))
    (distance,) = session.reveal(numbers - r)
    return vectors.gather(-1, (places - distance.unsqueeze(-1)) & (size - 1))
