"""Comparison of a secret with public numbers, from a masked opening and the dealer's tables of the mask.

The opened m = x + r is public, r's digits of four bits are not: for every digit the dealer shares the table of "v is
less than the digit", which each party looks up at m's digit by itself. A tree of conjunctions of degree four puts the
digits' answers together, and so tells whether m - r borrowed, hence x's sign. A digit is a nibble of a word of 32 or
64 bits, so that all digits of a number are looked up at once.
"""

# MERGED: Products of up to four secret bits, many of them in one round.
# MERGED: In which interval a secret lies, as bits that can be multiplied with public numbers.

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import combinations
from operator import and_, or_

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.primitives.ring import FRACTION_BITS, blockwise
from pi_sim.mpc.runtime import Runtime

NARROW, WIDE = torch.int32, torch.int64
"""Words for |x| < 2^31 and |x| < 2^63 in units of the ring."""
DIGITS_PER_AND = 4
"""Digits that one conjunction puts together."""


def digit_table_specs(length: int, word: torch.dtype) -> tuple[TensorSpec, TensorSpec]:
    """What a comparison takes of a mask r beside itself: the tables of its digits, and its top bit.

    Bit v - 4 w of nibble d in word w tells whether v is less than digit d.
    """
    return TensorSpec((4, length), 8 * word.itemsize, word), TensorSpec((length,), 1, torch.uint8)


def build_digit_tables(r: Tensor, word: torch.dtype) -> tuple[Tensor, Tensor]:
    """The values of these parts."""
    low = r.to(word)
    return torch.stack(blockwise(_less_than_tables, low)), _top_bit(low)


def is_negative(rt: Runtime, m: Tensor, table: Tensor, top: Tensor) -> Tensor:
    """Exclusive-or shares (0 or 1, uint8) of [m - r < 0] for public words m (T, n) and shares of what `derive` found.

    1. Look up lt = [v < digit] and eq = [v = digit], which is lt(v - 1) ^ lt(v), for every digit: local.
    2. Put four digits together, in all fours at once: lt = lt3 ^ eq3 lt2 ^ eq3 eq2 lt1 ^ eq3 eq2 eq1 lt0 (1 round).
    3. Do the same with the results (1 round); the sign is top(m) ^ top(r) ^ lt.

    2 rounds; 2 1/4 bytes for each element of m in words of 32 bits, 5 in words of 64.
    """
    fours = m.dtype.itemsize // 2
    found = blockwise(partial(_look_up_digits, rt), m, table)
    less, equal = _combine_digits(rt, found[:DIGITS_PER_AND], found[DIGITS_PER_AND:], bits=fours, last=False)
    borrowed, _ = _combine_digits(rt, _split_bits(less, fours), _split_bits(equal, fours), bits=1, last=True)
    return borrowed ^ top ^ (_top_bit(m) * (1 - rt.rank))


def boolean_interval_bits(rt: Runtime, m: Tensor, table: Tensor, top: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Exclusive-or shares of whether x = m - r lies before, between and behind ascending thresholds: (T + 1, n)."""
    ends = torch.tensor([round(each * 2**FRACTION_BITS) for each in thresholds], dtype=m.dtype, device=m.device)
    below = is_negative(rt, m - ends.view(-1, 1), table, top)
    everywhere = torch.full_like(below[:1], 1 - rt.rank)
    return torch.cat([below, everywhere]) ^ torch.cat([torch.zeros_like(everywhere), below])


def _top_bit(word: Tensor) -> Tensor:
    return (word < 0).to(torch.uint8)


def _lowest_bits(word: Tensor) -> int:
    """The lowest bit of every nibble."""
    return int("1" * 2 * word.dtype.itemsize, 16)


def _bit_planes(word: Tensor) -> list[Tensor]:
    """Bit k of every digit, at the digit's lowest place; the top bit is no digit's."""
    ones = _lowest_bits(word)
    return [(word >> place) & (ones if place < 3 else ones >> 4) for place in range(4)]


def _less_than_tables(r: Tensor) -> tuple[Tensor, ...]:
    """Four words of tables: the values 0 to 3, 4 to 7, 8 to 11, 12 to 15."""
    lowest, low, upper, high = _bit_planes(r)
    upper, high = upper * 15, high * 15
    partial = (lowest | low) | low << 1 | (lowest & low) << 2
    return partial | upper | high, high | (upper & partial), high & (upper | partial), high & upper & partial


def _look_up_digits(rt: Runtime, m: Tensor, table: Tensor) -> tuple[Tensor, ...]:
    """lt of the four neighbours, then eq: of digit 4 g + k as bit g of the k-th byte."""
    lowest, low, upper, high = _bit_planes(m)
    pair, upper, high = low * 3, upper * 15, high * 15
    first = rt.rank - 1  # nothing is less than digit 0: a table before the first holds ones
    words = _select_bits(_select_bits(table[0], table[1], upper), _select_bits(table[2], table[3], upper), high)
    before = _select_bits(_select_bits(first, table[0], upper), _select_bits(table[1], table[2], upper), high)
    ones = _lowest_bits(m)
    changes = words ^ (((words << 1) & ~ones) | ((before >> 3) & ones))
    return tuple(
        each for nibbles in (words, changes) for each in _group_by_digit(_select_nibble_bit(nibbles, pair, lowest))
    )


def _select_bits(zero: Tensor | int, one: Tensor, chosen: Tensor) -> Tensor:
    """Of every bit the one of two that is chosen."""
    return zero ^ ((zero ^ one) & chosen)


def _select_nibble_bit(nibbles: Tensor, pair: Tensor, lowest: Tensor) -> Tensor:
    """One bit of each nibble: its upper or lower two, then one of these."""
    two = _select_bits(nibbles, nibbles >> 2, pair)
    return _select_bits(two, two >> 1, lowest) & _lowest_bits(nibbles)


def _group_by_digit(word: Tensor) -> list[Tensor]:
    """The lowest bits of nibbles 4 g + k as bit g of the k-th byte."""
    fours = word.dtype.itemsize // 2
    folded = reduce(or_, (word >> (4 * DIGITS_PER_AND - 1) * four for four in range(fours)))
    return [(folded >> 4 * k).to(torch.uint8) & (2**fours - 1) for k in range(DIGITS_PER_AND)]


def _combine_digits(
    rt: Runtime, less: Sequence[Tensor], equal: Sequence[Tensor], bits: int, last: bool
) -> tuple[Tensor, Tensor]:
    """lt and eq of neighbours, the lowest first; the last eq is not needed."""
    count = len(less)
    factors = [*less[:-1], *equal[1:], *([] if last else equal[:1])]
    higher = [tuple(range(count - 1 + place, 2 * count - 2)) for place in range(count - 1)]
    wanted = [(place, *equals) for place, equals in enumerate(higher)]
    found = and_products(rt, factors, (*wanted, *([] if last else [(*higher[0], 2 * count - 2)])), bits)
    return reduce(lambda one, other: one ^ other, found[: count - 1], less[-1]), found[-1]


def _split_bits(packed: Tensor, bits: int) -> list[Tensor]:
    """The bits of a byte as bytes."""
    return [(packed >> place) & 1 for place in range(bits)]


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
            return (
                _pack_factors(
                    [reduce(and_, (masks[factor] for factor in chosen)) for chosen in self.subsets], self.bits
                ),
            )

        return blockwise(multiply, values[0])

    def _packed_spec(self, count: int) -> TensorSpec:
        together = 8 // self.bits
        used = self.bits * count if count < together else 8
        return TensorSpec((-(-count // together), *self.shape), used, torch.uint8)


def and_products(rt: Runtime, factors: Sequence[Tensor], wanted: FactorSets, bits: int) -> tuple[Tensor, ...]:
    """Exclusive-or shares of products of exclusive-or shared bits, `bits` of them in each byte of a factor.

    1. Take shares of a mask for each factor, and of all products of masks from the dealer.
    2. Open every factor under its mask.
    3. A product of factors d ^ a is the exclusive or, over all subsets, of the product of the subset's d, which are
       public, and the other a.

    1 round; `bits` bits for each factor, a byte holding as many factors, or elements of few factors, as fit.
    """
    sets = _subsets(wanted)
    correlation = AndMasks(tuple(factors[0].shape), len(factors), sets, bits)
    masks, products = rt.correlated(correlation)
    (packed,) = blockwise(lambda *each: (_pack_factors(each, bits),), *factors)
    opened = rt.reveal_bits(packed ^ masks, correlation.random_parts[0].bits or 8)

    def multiply(opened: Tensor, masks: Tensor, products: Tensor) -> tuple[Tensor, ...]:
        known = dict(zip(sets, _unpack_factors(products, len(sets), bits), strict=True))
        known |= {(factor,): mask for factor, mask in enumerate(_unpack_factors(masks, len(factors), bits))}
        public = _unpack_factors(opened, len(factors), bits)
        ones = (2**bits - 1) * (1 - rt.rank)
        return tuple(_expand_product(chosen, (), public, known, ones) for chosen in wanted)

    return blockwise(multiply, opened, masks, products)


def _subsets(wanted: FactorSets) -> FactorSets:
    """Every subset, of two factors or more, of a product that is wanted."""
    found = {part for chosen in wanted for size in range(2, len(chosen) + 1) for part in combinations(chosen, size)}
    return tuple(sorted(found))


def _pack_factors(values: Sequence[Tensor], bits: int) -> Tensor:
    """As many values to a byte as fit: (count, ...) bytes."""
    together = 8 // bits
    return torch.stack(
        [_pack_byte(values[start : start + together], bits) for start in range(0, len(values), together)]
    )


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
        return *digit_table_specs(self.length, self.word), TensorSpec((self.count, self.length))

    def derive(self, *values: Tensor) -> tuple[Tensor, ...]:
        r, p = values
        return *build_digit_tables(r, self.word), p.to(torch.int64)


def interval_bits(rt: Runtime, share: Tensor, thresholds: Sequence[float], word: torch.dtype = NARROW) -> Tensor:
    """Shares in the ring of 0 or 1 for each interval between ascending thresholds: (T + 1, ...), no fraction.

    The masked comparison in words of either length, and one more opening of z = i ^ p: i = z + (1 - 2 z) p.
    4 rounds; 8 bytes, and 2 3/8 for each threshold (5 1/8 in words of 64 bits).
    """
    flat = share.reshape(-1)
    r, p, table, top, ring_p = rt.correlated(IntervalBits(len(flat), len(thresholds) + 1, word))
    (m,) = rt.reveal(flat + r)
    inside = boolean_interval_bits(rt, m.to(word), table, top, thresholds)
    z = rt.reveal_bits(inside ^ p, 1).to(torch.int64)
    found = z * (1 - rt.rank) + (1 - 2 * z) * ring_p
    return found.view(len(thresholds) + 1, *share.shape)
