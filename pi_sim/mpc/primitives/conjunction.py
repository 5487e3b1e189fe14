"""Products of up to four secret bits, many of them in one round."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import and_, or_

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec
from pi_sim.mpc.primitives.blocks import blockwise

FactorSets = tuple[tuple[int, ...], ...]
"""Products, each by the numbers of its factors."""


@dataclass(frozen=True)
class AndMasks(Correlation):
    """A random mask for each of `factors`, `bits` wide, and the product of every set of masks that is needed."""

    shape: Shape
    factors: int
    subsets: FactorSets
    bits: int

    @property
    def random_parts(self) -> tuple[TensorSpec, ...]:
        return (self._packed_spec(self.factors),)

    @property
    def dependent_parts(self) -> tuple[TensorSpec, ...]:
        return (self._packed_spec(len(self.subsets)),)

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        def multiply(packed: Tensor) -> tuple[Tensor]:
            masks = _unpack_factors(packed, self.factors, self.bits)
            return (_pack_factors([reduce(and_, (masks[factor] for factor in chosen)) for chosen in self.subsets], self.bits),)

        return blockwise(multiply, values[0])

    def _packed_spec(self, count: int) -> TensorSpec:
        together = 8 // self.bits
        used = self.bits * count if count < together else 8
        return TensorSpec((-(-count // together), *self.shape), used, torch.uint8)


def and_products(factors: Sequence[Tensor], wanted: FactorSets, bits: int) -> tuple[Tensor, ...]:
    """Exclusive-or shares of products of exclusive-or shared bits, `bits` of them in each byte of a factor.

    1. Take shares of a mask for each factor, and of all products of masks from the dealer.
    2. Open every factor under its mask.
    3. A product of factors d ^ a is the exclusive or, over all subsets, of the product of the subset's d, which are
       public, and the other a.

    1 round; `bits` bits for each factor, a byte holding as many factors, or elements of few factors, as fit.
    """
    sets = _subsets(wanted)
    correlation = AndMasks(tuple(factors[0].shape), len(factors), sets, bits)
    masks, products = session.correlated(correlation)
    (packed,) = blockwise(lambda *each: (_pack_factors(each, bits),), *factors)
    opened = session.reveal_bits(packed ^ masks, correlation.random_parts[0].bits or 8)

    def multiply(opened: Tensor, masks: Tensor, products: Tensor) -> tuple[Tensor, ...]:
        known = dict(zip(sets, _unpack_factors(products, len(sets), bits), strict=True))
        known |= {(factor,): mask for factor, mask in enumerate(_unpack_factors(masks, len(factors), bits))}
        public = _unpack_factors(opened, len(factors), bits)
        ones = (2**bits - 1) * (1 - session.rank())
        return tuple(_expand_product(chosen, (), public, known, ones) for chosen in wanted)

    return blockwise(multiply, opened, masks, products)


def _subsets(wanted: FactorSets) -> FactorSets:
    """Every subset, of two factors or more, of a product that is wanted."""
    found = {part for chosen in wanted for size in range(2, len(chosen) + 1) for part in combinations(chosen, size)}
    return tuple(sorted(found))


def _pack_factors(values: Sequence[Tensor], bits: int) -> Tensor:
    """As many values to a byte as fit: (count, ...) bytes."""
    together = 8 // bits
    return torch.stack([_pack_byte(values[start : start + together], bits) for start in range(0, len(values), together)])


def _pack_byte(values: Iterable[Tensor], bits: int) -> Tensor:
    return reduce(or_, (value << bits * place for place, value in enumerate(values)))


def _unpack_factors(packed: Tensor, count: int, bits: int) -> list[Tensor]:
    places = (divmod(number, 8 // bits) for number in range(count))
    return [(packed[byte] >> bits * place) & (2**bits - 1) for byte, place in places]


def _expand_product(
    factors: tuple[int, ...],
    hidden: tuple[int, ...],
    public: Sequence[Tensor],
    known: Mapping[tuple[int, ...], Tensor],
    ones: int,
) -> Tensor:
    """The product of factors and of hidden masks, one factor d ^ a after another; that of nothing is party 0's."""
    if not factors:
        return known[hidden]
    first, *others = factors
    rest = tuple(others)
    outer = ones if not rest and not hidden else _expand_product(rest, hidden, public, known, ones)
    return (public[first] & outer) ^ _expand_product(rest, (*hidden, first), public, known, ones)
