"""ReLU and maxima of 32-bit words: the dealer shares a result for every case of the public bits that decide.

A masked comparison ends in a few bits. They are opened under random bits, and what remains secret depends on these
alone: the dealer shares it, and its product with the mask of the compared word, for all cases of the opened bits.
"""

from itertools import combinations

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.primitives.comparison import (
    NARROW,
    build_digit_tables,
    compare_groups,
    digit_table_specs,
    is_negative,
    split_bits,
    top_bit,
)
from pi_sim.mpc.primitives.narrow import choose
from pi_sim.mpc.primitives.ring import blockwise
from pi_sim.mpc.runtime import Runtime

SIGN_CASES = 4
"""Values of the two public bits that decide over a sign."""


def sign_masks(length: int) -> Correlation:
    """Return the correlation of a mask r with its tables, three random bits, and a bit s and s r for four cases."""

    def derive(r: Tensor, packed: Tensor) -> tuple[Tensor, ...]:
        low, equal, high = ((packed >> bit) & 1 for bit in range(3))
        base = high ^ (low & equal)
        sign = torch.stack([base, base ^ equal, base ^ low, base ^ low ^ equal]).to(NARROW)
        return *build_digit_tables(r, NARROW), sign, sign * r

    random = TensorSpec((length,), dtype=NARROW), TensorSpec((length,), 3, torch.uint8)
    cases = TensorSpec((SIGN_CASES, length), dtype=NARROW)
    return Correlation(random, (*digit_table_specs(length, NARROW), cases, cases), derive)


def rectify(rt: Runtime, share: Tensor) -> Tensor:
    """Return max(x, 0) of 32-bit words, |x| < 2^31 units, in 32-bit words.

    1. Open m = x + r (1 round, 4 bytes).
    2. Combine the digits' comparisons in groups (`comparison`: 1 round, 1 3/4 bytes).
    3. The sign is U ^ (A & E): open all three under random bits a, e and u (1 round, 1/2 byte). Given the opened A and
       E it is z ^ s for a public z and a bit s, which the dealer shares, with s r, for all four cases.
    4. x - sign x, where s x = m s - s r: local.

    3 rounds; 6 1/4 bytes and 54 1/2 offline per element.
    """
    flat = share.reshape(-1)
    r, masks, table, top, sign, sign_product = rt.correlated(sign_masks(len(flat)))
    m = rt.reveal_u32(flat + r)
    less, equal, _ = compare_groups(rt, m.view(1, -1), table)
    low_less, high_less = (bits[0] for bits in split_bits(less, 2))
    high_equal = (equal[0] >> 1) & 1
    packed = low_less | high_equal << 1 | (high_less ^ top) << 2
    opened = rt.reveal_bits(packed ^ masks, 4)

    def clip(opened: Tensor, m: Tensor, share: Tensor, sign: Tensor, sign_product: Tensor) -> tuple[Tensor]:
        low, equal, high = ((opened >> bit) & 1 for bit in range(3))
        z = high ^ (low & equal) ^ top_bit(m)
        case = (low + 2 * equal).to(torch.int64).unsqueeze(0)
        product = m * sign.gather(0, case)[0] - sign_product.gather(0, case)[0]
        return (share - choose(z, share, product),)

    return blockwise(clip, opened, m, flat, sign, sign_product)[0].view(share.shape)


def largest_masks(size: int, length: int) -> Correlation:
    """Return the correlation of masks r of groups (size, length), with the tables of the differences of each pair.

    Of random bits p, one per pair, each element of a group sees size - 1. It is the largest in one case of these bits
    once they are opened; the dealer shares the indicator of that case, and its product with the element's mask.
    """
    pairs, cases = _pairs(size), 2 ** (size - 1)

    def derive(r: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        differences = torch.cat([r[first] - r[second] for first, second in pairs])
        case = torch.stack([_case(p, element, size) for element in range(size)]) ^ (cases - 1)
        indicator = (case.unsqueeze(1) == torch.arange(cases, device=r.device).view(1, -1, 1)).to(NARROW)
        return *build_digit_tables(differences, NARROW), indicator, indicator * r.unsqueeze(1)

    tables = digit_table_specs(len(pairs) * length, NARROW)
    indicators = TensorSpec((size, cases, length), dtype=NARROW)
    random = TensorSpec((size, length), dtype=NARROW), TensorSpec((len(pairs), length), 1, torch.uint8)
    return Correlation(random, (*tables, indicators, indicators), derive)


def _pairs(size: int) -> list[tuple[int, int]]:
    return list(combinations(range(size), 2))


def _case(bits: Tensor, element: int, size: int) -> Tensor:
    """Return the bits (pairs, n) of the pairs with an element as a number, in the order of the pairs."""
    own = [bits[number] for number, pair in enumerate(_pairs(size)) if element in pair]
    return torch.stack([bit.to(torch.int64) << place for place, bit in enumerate(own)]).sum(0)


def largest(rt: Runtime, groups: Tensor) -> Tensor:
    """Return the largest (..., n) of each group of 32-bit words (..., g, n), all differences below 2^31 units.

    1. Open every word under its mask (1 round, 4 bytes).
    2. Compare all pairs by the differences of what was opened (`comparison`: 2 rounds, 2 bytes per pair).
    3. Open the results of all pairs under random bits (1 round, 1/8 byte per pair).
    4. Sum up i x = m i - i r, where the dealer shares the indicator i of the largest and i r for all cases: local.

    4 rounds. Of equal words the first one is the largest.
    """
    words = groups.movedim(-2, 0).to(NARROW)
    size, shape = len(words), words.shape[1:]
    flat, pairs = words.reshape(size, -1), _pairs(size)
    r, p, table, top, indicator, product = rt.correlated(largest_masks(size, flat.shape[-1]))
    m = rt.reveal_u32(flat + r)
    differences = torch.cat([m[first] - m[second] for first, second in pairs]).view(1, -1)
    is_less, _ = is_negative(rt, differences, table, top)
    opened = rt.reveal_bits(is_less.view(p.shape) ^ p, 1)

    def add_up(opened: Tensor, m: Tensor, indicator: Tensor, product: Tensor) -> tuple[Tensor]:
        total = torch.zeros_like(m[0])
        for element in range(size):
            wins = [bit if element == second else 1 - bit for bit, (_, second) in zip(opened, pairs, strict=True)]
            case = _case(torch.stack(wins), element, size).unsqueeze(0)
            total += m[element] * indicator[element].gather(0, case)[0] - product[element].gather(0, case)[0]
        return (total,)

    return blockwise(add_up, opened, m, indicator, product)[0].view(shape)
