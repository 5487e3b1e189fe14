"""Comparison of a secret with public numbers, from a masked opening and the dealer's tables of the mask.

The opened m = x + r is public, r's digits of four bits are not: for every digit the dealer shares the table of "v is
less than the digit", which each party looks up at m's digit by itself. A tree of conjunctions of degree four puts the
digits' answers together, and so tells whether m - r borrowed, hence x's sign. A digit is a nibble of a word of 32 or
64 bits, so that all digits of a number are looked up at once.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import TensorSpec
from pi_sim.mpc.primitives.blocks import blockwise
from pi_sim.mpc.primitives.conjunction import and_products
from pi_sim.mpc.primitives.function import FRACTION_BITS

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


def is_negative(m: Tensor, table: Tensor, top: Tensor) -> Tensor:
    """Exclusive-or shares (0 or 1, uint8) of [m - r < 0] for public words m (T, n) and shares of what `derive` found.

    1. Look up lt = [v < digit] and eq = [v = digit], which is lt(v - 1) ^ lt(v), for every digit: local.
    2. Put four digits together, in all fours at once: lt = lt3 ^ eq3 lt2 ^ eq3 eq2 lt1 ^ eq3 eq2 eq1 lt0 (1 round).
    3. Do the same with the results (1 round); the sign is top(m) ^ top(r) ^ lt.

    2 rounds; 2 1/4 bytes for each element of m in words of 32 bits, 5 in words of 64.
    """
    fours = m.dtype.itemsize // 2
    found = blockwise(_look_up_digits, m, table)
    less, equal = _combine_digits(found[:DIGITS_PER_AND], found[DIGITS_PER_AND:], bits=fours, last=False)
    borrowed, _ = _combine_digits(_split_bits(less, fours), _split_bits(equal, fours), bits=1, last=True)
    return borrowed ^ top ^ (_top_bit(m) * (1 - session.rank()))


def boolean_interval_bits(m: Tensor, table: Tensor, top: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Exclusive-or shares of whether x = m - r lies before, between and behind ascending thresholds: (T + 1, n)."""
    ends = torch.tensor([round(each * 2**FRACTION_BITS) for each in thresholds], dtype=m.dtype, device=m.device)
    below = is_negative(m - ends.view(-1, 1), table, top)
    everywhere = torch.full_like(below[:1], 1 - session.rank())
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


def _look_up_digits(m: Tensor, table: Tensor) -> tuple[Tensor, ...]:
    """lt of the four neighbours, then eq: of digit 4 g + k as bit g of the k-th byte."""
    lowest, low, upper, high = _bit_planes(m)
    pair, upper, high = low * 3, upper * 15, high * 15
    first = session.rank() - 1  # nothing is less than digit 0: a table before the first holds ones
    words = _select_bits(_select_bits(table[0], table[1], upper), _select_bits(table[2], table[3], upper), high)
    before = _select_bits(_select_bits(first, table[0], upper), _select_bits(table[1], table[2], upper), high)
    ones = _lowest_bits(m)
    changes = words ^ (((words << 1) & ~ones) | ((before >> 3) & ones))
    return tuple(each for nibbles in (words, changes) for each in _group_by_digit(_select_nibble_bit(nibbles, pair, lowest)))


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


def _combine_digits(less: Sequence[Tensor], equal: Sequence[Tensor], bits: int, last: bool) -> tuple[Tensor, Tensor]:
    """lt and eq of neighbours, the lowest first; the last eq is not needed."""
    count = len(less)
    factors = [*less[:-1], *equal[1:], *([] if last else equal[:1])]
    higher = [tuple(range(count - 1 + place, 2 * count - 2)) for place in range(count - 1)]
    wanted = [(place, *equals) for place, equals in enumerate(higher)]
    found = and_products(factors, (*wanted, *([] if last else [(*higher[0], 2 * count - 2)])), bits)
    return reduce(lambda one, other: one ^ other, found[: count - 1], less[-1]), found[-1]


def _split_bits(packed: Tensor, bits: int) -> list[Tensor]:
    """The bits of a byte as bytes."""
    return [(packed >> place) & 1 for place in range(bits)]
