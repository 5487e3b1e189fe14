"""Products of up to four secret bits, many of them in one round."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import and_, or_

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, Part

Wanted = tuple[tuple[int, ...], ...]
"""Products, each by the numbers of its factors."""


@dataclass(frozen=True)
class Masks(Correlation):
    """A random mask for each of `factors` bytes of bits, and the product of every set of masks that is needed."""

    shape: Shape
    factors: int
    sets: Wanted
    bits: int

    @property
    def drawn(self) -> tuple[Part, ...]:
        return (self._part(),) * self.factors

    @property
    def derived(self) -> tuple[Part, ...]:
        return (self._part(),) * len(self.sets)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(reduce(and_, (values[factor] for factor in chosen)) for chosen in self.sets)

    def _part(self) -> Part:
        return Part(self.shape, self.bits, torch.uint8)


def conjunctions(factors: Sequence[Tensor], wanted: Wanted, bits: int) -> list[Tensor]:
    """Exclusive-or shares of products of exclusive-or shared bits, `bits` of them in each byte of a factor.

    1. Take shares of a mask for each factor, and of all products of masks from the dealer.
    2. Open every factor under its mask.
    3. A product of factors d ^ a is the exclusive or, over all subsets, of the product of the subset's d, which are
       public, and the other a.

    1 round; `bits` bits for each factor, 8 // bits of them in a byte.
    """
    sets = _sets(wanted)
    shape = tuple(factors[0].shape)
    dealt = session.deal(Masks(shape, len(factors), sets, bits))
    masks, products = dealt[: len(factors)], dict(zip(sets, dealt[len(factors) :], strict=True))
    products |= {(factor,): mask for factor, mask in enumerate(masks)}
    opened = _open([factor ^ mask for factor, mask in zip(factors, masks, strict=True)], bits)
    return [_product(chosen, opened, products) for chosen in wanted]


def _sets(wanted: Wanted) -> Wanted:
    """Every subset, of two factors or more, of a product that is wanted."""
    found = {part for chosen in wanted for size in range(2, len(chosen) + 1) for part in combinations(chosen, size)}
    return tuple(sorted(found))


def _open(masked: list[Tensor], bits: int) -> list[Tensor]:
    """Factors of few bits share a byte."""
    together = 8 // bits
    packed = [_pack(masked[start : start + together], bits) for start in range(0, len(masked), together)]
    opened = session.reveal_bits(*packed)
    places = [divmod(number, together) for number in range(len(masked))]
    return [(opened[byte] >> (bits * place)) & (2**bits - 1) for byte, place in places]


def _pack(factors: list[Tensor], bits: int) -> Tensor:
    return reduce(or_, (factor << (bits * place) for place, factor in enumerate(factors)))


def _product(chosen: tuple[int, ...], opened: list[Tensor], products: dict[tuple[int, ...], Tensor]) -> Tensor:
    """The sum over subsets; the product of opened bits alone belongs to party 0's share."""
    total = reduce(and_, (opened[factor] for factor in chosen)) * (1 - session.rank())
    for hidden in _subsets(chosen):
        public = [opened[factor] for factor in chosen if factor not in hidden]
        total = total ^ reduce(and_, public, products[hidden])
    return total


def _subsets(chosen: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    return (part for size in range(1, len(chosen) + 1) for part in combinations(chosen, size))
