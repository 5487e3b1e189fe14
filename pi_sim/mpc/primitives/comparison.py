"""Comparison of a secret with public thresholds, from one masked opening and the dealer's tables of the mask.

The opened m = x + r is public, r's digits of four bits are not: for each digit the dealer shares the table of
[v < digit], v = 0 to 15, in which each party looks up m's digit locally. A tree of multi-input ANDs combines the digits
into the borrow of m - r, hence x's sign. A digit is a nibble of a word of 32 or 64 bits, so that all digits of a number
are looked up at once. The indicator bits of intervals are converted to additive shares by one more opening.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial, reduce
from itertools import combinations
from operator import and_, or_, xor

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.openings import Opening, XorOpening
from pi_sim.mpc.primitives.ring import FRACTION_BITS, blockwise
from pi_sim.mpc.runtime import Runtime

NARROW, WIDE = torch.int32, torch.int64
"""Words for |x| < 2^31 and |x| < 2^63 in units of the ring."""
DIGITS_PER_AND = 4
"""Digits that one multi-input AND combines."""


def digit_table_specs(length: int, word: torch.dtype) -> tuple[TensorSpec, TensorSpec]:
    """Return the dependent parts for a mask r (length): its digits' tables (4, length), and its top bit (length).

    Bit v - 4 w of nibble d in word w of the tables is [v < digit d of r].
    """
    return TensorSpec((4, length), 8 * word.itemsize, word), TensorSpec((length,), 1, torch.uint8)


def build_digit_tables(r: Tensor, word: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the values of these parts."""
    low_word = r.to(word)
    return torch.stack(blockwise(_less_than_tables, low_word)), top_bit(low_word)


def is_negative(
    rt: Runtime, m: Tensor, table: Tensor, top: Tensor, beside: Sequence[Opening] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Return XOR shares (0 or 1, uint8) of [m - r < 0] for public words m (T, n) and shares of r's tables.

    The openings `beside` join the first round; their values are returned too.

    1. Look up lt = [v < digit] and eq = [v = digit], which is lt(v - 1) ^ lt(v), for every digit: local.
    2. Combine each group of four digits: lt = lt3 ^ eq3 lt2 ^ eq3 eq2 lt1 ^ eq3 eq2 eq1 lt0 (1 round).
    3. Combine the results in the same way (1 round); the sign is top(m) ^ top(r) ^ lt.

    2 rounds; 2 bytes per element of m in 32-bit words, 4 1/4 in 64-bit words.
    """
    groups = m.dtype.itemsize // 2
    group_less, group_equal, opened = compare_groups(rt, m, table, beside)
    borrow, _, _ = _combine_digits(rt, split_bits(group_less, groups), split_bits(group_equal, groups), 1, last=True)
    return borrow ^ top ^ (top_bit(m) * (1 - rt.rank)), opened


def compare_groups(
    rt: Runtime, m: Tensor, table: Tensor, beside: Sequence[Opening] = ()
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return lt and eq of each group of four digits, bit g of a byte for group g, the lowest first: 1 round."""
    less_and_equal = blockwise(partial(_look_up_digits, rt), m, table)
    less, equal = less_and_equal[:DIGITS_PER_AND], less_and_equal[DIGITS_PER_AND:]
    return _combine_digits(rt, less, equal, m.dtype.itemsize // 2, last=False, beside=beside)


def boolean_interval_bits(rt: Runtime, m: Tensor, table: Tensor, top: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Return XOR shares (T + 1, n) of the indicators of x = m - r in the intervals between ascending thresholds.

    Rounds and bytes of `is_negative` for T n elements.
    """
    ends = [round(threshold * 2**FRACTION_BITS) for threshold in thresholds]
    return locate(rt, m, table, top, ends)[0]


def locate(
    rt: Runtime, m: Tensor, table: Tensor, top: Tensor, ends: Sequence[int], beside: Sequence[Opening] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Return the XOR shares of `boolean_interval_bits` for thresholds in units of the ring, and the values `beside`."""
    thresholds = torch.tensor(ends, dtype=m.dtype, device=m.device).view(-1, 1)
    below, opened = is_negative(rt, m - thresholds, table, top, beside)
    ones = torch.full((1, m.shape[-1]), 1 - rt.rank, dtype=below.dtype, device=m.device)
    return torch.cat([below, ones]) ^ torch.cat([torch.zeros_like(ones), below]), opened


def top_bit(word: Tensor) -> Tensor:
    return (word < 0).to(torch.uint8)


def _lowest_bits(word: Tensor) -> int:
    """Return the mask of the lowest bit of every nibble."""
    return int("1" * 2 * word.dtype.itemsize, 16)


def _bit_planes(word: Tensor) -> list[Tensor]:
    """Return bit k of every digit at the digit's lowest bit; the word's top bit belongs to no digit."""
    ones = _lowest_bits(word)
    return [(word >> bit) & (ones if bit < 3 else ones >> 4) for bit in range(4)]


def _less_than_tables(r: Tensor) -> tuple[Tensor, ...]:
    """Return four words of tables: those of v = 0 to 3, 4 to 7, 8 to 11, and 12 to 15."""
    lowest, low, upper, high = _bit_planes(r)
    upper, high = upper * 15, high * 15
    low_table = (lowest | low) | low << 1 | (lowest & low) << 2
    return low_table | upper | high, high | (upper & low_table), high & (upper | low_table), high & upper & low_table


def _look_up_digits(rt: Runtime, m: Tensor, table: Tensor) -> tuple[Tensor, ...]:
    """Return lt, then eq, in four bytes each: digit 4 g + k is bit g of byte k. Local."""
    lowest, low, upper, high = _bit_planes(m)
    pair, upper, high = low * 3, upper * 15, high * 15
    before_first = rt.rank - 1  # nothing is less than digit 0: a table before the first holds ones
    words = _select_bits(_select_bits(table[0], table[1], upper), _select_bits(table[2], table[3], upper), high)
    before = _select_bits(_select_bits(before_first, table[0], upper), _select_bits(table[1], table[2], upper), high)
    ones = _lowest_bits(m)
    changes = words ^ (((words << 1) & ~ones) | ((before >> 3) & ones))
    return tuple(
        group for nibbles in (words, changes) for group in _group_by_digit(_select_nibble_bit(nibbles, pair, lowest))
    )


def _select_bits(zero: Tensor | int, one: Tensor, choice: Tensor) -> Tensor:
    """Return the bits of `one` where `choice` has ones, else those of `zero`."""
    return zero ^ ((zero ^ one) & choice)


def _select_nibble_bit(nibbles: Tensor, pair: Tensor, lowest: Tensor) -> Tensor:
    """Return one bit of each nibble: select its upper or lower pair, then a bit of the pair."""
    two = _select_bits(nibbles, nibbles >> 2, pair)
    return _select_bits(two, two >> 1, lowest) & _lowest_bits(nibbles)


def _group_by_digit(word: Tensor) -> list[Tensor]:
    """Return the lowest bit of each nibble 4 g + k as bit g of byte k."""
    groups = word.dtype.itemsize // 2
    folded = reduce(or_, (word >> (4 * DIGITS_PER_AND - 1) * group for group in range(groups)))
    return [(folded >> 4 * k).to(torch.uint8) & (2**groups - 1) for k in range(DIGITS_PER_AND)]


def _combine_digits(
    rt: Runtime,
    less: Sequence[Tensor],
    equal: Sequence[Tensor],
    bits: int,
    last: bool,
    beside: Sequence[Opening] = (),
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return lt and eq of a group of digits, the lowest first, and the values of the openings `beside`.

    The eq of the `last` combination is not computed.
    """
    count = len(less)
    factors = [*less[:-1], *equal[1:], *([] if last else equal[:1])]
    products, opened = and_products(rt, factors, _digit_products(count, last), bits, beside)
    return reduce(xor, products[: count - 1], less[-1]), products[-1], opened


def _digit_products(count: int, last: bool) -> "FactorSets":
    """Return the products that combine `count` digits: of lt with all higher eq, then of all eq."""
    higher = [tuple(range(count - 1 + digit, 2 * count - 2)) for digit in range(count - 1)]
    less_products = [(digit, *equals) for digit, equals in enumerate(higher)]
    return *less_products, *([] if last else [(*higher[0], 2 * count - 2)])


def and_cost(word: torch.dtype) -> tuple[Fraction, Fraction]:
    """Return the bytes and the offline bytes of the multi-input ANDs of one comparison, besides its tables."""
    groups = word.itemsize // 2
    sent, dealt = Fraction(0), Fraction(0)
    for count, last, bits in ((DIGITS_PER_AND, False, groups), (groups, True, 1)):
        sent += Fraction((2 * count - 2 + (not last)) * bits, 8)
        dealt += Fraction(len(_subsets(_digit_products(count, last))) * bits, 8)
    return sent, dealt


def split_bits(packed: Tensor, bits: int) -> list[Tensor]:
    """Return the bits of a byte as bytes."""
    return [(packed >> bit) & 1 for bit in range(bits)]


FactorSets = tuple[tuple[int, ...], ...]
"""Products, each as the indices of its factors."""


def and_masks(elements: int, factors: int, subsets: FactorSets, bits: int) -> Correlation:
    """Return the correlation of a mask for each of `factors`, and the AND of the masks of each subset, in bit planes.

    A plane has `bits` bits for each of the elements, as many elements to a byte as fit.
    """

    def derive(masks: Tensor) -> tuple[Tensor]:
        return (torch.stack([reduce(and_, (masks[factor] for factor in subset)) for subset in subsets]),)

    length = -(-elements * bits // 8)
    planes, products = (TensorSpec((count, length), 8, torch.uint8) for count in (factors, len(subsets)))
    return Correlation((planes,), (products,), lambda masks: blockwise(derive, masks))


def and_products(
    rt: Runtime, factors: Sequence[Tensor], products: FactorSets, bits: int, beside: Sequence[Opening] = ()
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Return XOR shares of multi-input ANDs of XOR-shared bits, `bits` of them in each byte of a factor.

    The openings `beside` join the round; their values are returned too.

    1. Take shares of a mask for each factor, and of the products of all subsets of masks, from the dealer.
    2. Open every factor under its mask: d = factor ^ mask.
    3. A product of factors d ^ a is the XOR, over all subsets, of the product of the subset's d, which are public,
       and of the masks a of the other factors.

    1 round; `bits` bits per element of each factor.
    """
    subsets, shape = _subsets(products), factors[0].shape
    masks, mask_products = rt.correlated(and_masks(factors[0].numel(), len(factors), subsets, bits))
    planes = torch.stack([_pack_plane(factor, bits) for factor in factors])
    differences, *opened = rt.open(XorOpening(planes ^ masks, 8), *beside)

    def multiply(differences: Tensor, masks: Tensor, mask_products: Tensor) -> tuple[Tensor, ...]:
        shares: dict[tuple[int, ...], Tensor] = dict(zip(subsets, mask_products, strict=True))
        shares |= {(factor,): mask for factor, mask in enumerate(masks)}
        ones = 255 * (1 - rt.rank)

        def expand(product: tuple[int, ...], hidden: tuple[int, ...] = ()) -> Tensor:
            """Expand the product of (d ^ a) times the masks of `hidden`; party 0 adds the all-public term."""
            if not product:
                return shares[hidden]
            first, rest = product[0], product[1:]
            outer = ones if not rest and not hidden else expand(rest, hidden)
            value: Tensor = (differences[first] & outer) ^ expand(rest, (*hidden, first))
            return value

        return tuple(map(expand, products))

    results = blockwise(multiply, differences, masks, mask_products)
    return tuple(_unpack_plane(plane, bits, shape) for plane in results), opened


def _subsets(products: FactorSets) -> FactorSets:
    """Return every subset of two factors or more of the products, sorted."""
    subsets = {
        subset for product in products for size in range(2, len(product) + 1) for subset in combinations(product, size)
    }
    return tuple(sorted(subsets))


def _pack_plane(values: Tensor, bits: int) -> Tensor:
    """Return the lowest `bits` bits of bytes as a plane, as many elements to a byte as fit."""
    per_byte, flat = 8 // bits, values.reshape(-1)
    padding = -len(flat) % per_byte
    rows = (torch.nn.functional.pad(flat, (0, padding)) if padding else flat).view(per_byte, -1)
    plane: Tensor = reduce(or_, (row << bits * index for index, row in enumerate(rows)))
    return plane


def _unpack_plane(plane: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """Return the elements of a plane as bytes."""
    parts = [(plane >> bits * index) & (2**bits - 1) for index in range(8 // bits)]
    return torch.cat(parts)[: shape.numel()].view(shape)


def shared_bits(length: int, count: int, word: torch.dtype) -> Correlation:
    """Return the correlation of a mask r with its tables and top bit, and `count` bits shared by XOR and additively."""

    def derive(r: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        return *build_digit_tables(r, word), p.to(torch.int64)

    random_parts = TensorSpec((length,)), TensorSpec((count, length), 1, torch.uint8)
    return Correlation(random_parts, (*digit_table_specs(length, word), TensorSpec((count, length))), derive)


def interval_bits(rt: Runtime, share: Tensor, thresholds: Sequence[float], word: torch.dtype = NARROW) -> Tensor:
    """Return additive shares (T + 1, ...) of the indicators of x in the intervals between ascending thresholds.

    The indicators are the integers 0 and 1, without a fraction. x must fit `word`, in which it is compared.
    The masked comparison (3 rounds), and one opening of z = i ^ p: i = z + (1 - 2 z) p.
    4 rounds; 8 bytes, and 2 1/8 per threshold (4 3/8 in 64-bit words).
    """
    flat = share.reshape(-1)
    r, p, table, top, additive_p = rt.correlated(shared_bits(len(flat), len(thresholds) + 1, word))
    (m,) = rt.reveal(flat + r)
    inside = boolean_interval_bits(rt, m.to(word), table, top, thresholds)
    z = rt.reveal_bits(inside ^ p, 1).to(torch.int64)
    bits = z * (1 - rt.rank) + (1 - 2 * z) * additive_p
    return bits.view(len(thresholds) + 1, *share.shape)
