"""Comparison of a secret with public numbers, from a masked opening and the dealer's tables of the mask.

The opened m = x + r is public, r's digits of four bits are not: for every digit the dealer shares the table of "v is
less than the digit", which each party looks up at m's digit by itself. A tree of conjunctions of degree four puts the
digits' answers together, and so tells whether m - r borrowed, hence x's sign.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc import session
from pi_sim.mpc.dealer.correlation import Part
from pi_sim.mpc.primitives.conjunction import conjunctions
from pi_sim.mpc.primitives.function import FRACTION
from pi_sim.mpc.primitives.truncation import logical_shift

DIGITS, DIGIT = 16, 4
"""A word without its top bit is 16 digits of 4 bits, the highest with 3."""
LOW = 2**63 - 1


def parts(shape: Shape) -> tuple[Part, Part]:
    """What a comparison takes of a mask r beside itself: the tables of its digits, and its top bit."""
    return Part((DIGITS, *shape), 16, torch.int16), Part(shape, 1, torch.uint8)


def derive(r: Tensor) -> tuple[Tensor, Tensor]:
    """The values of these parts."""
    return _tables(r), logical_shift(r, 63).to(torch.uint8)


def _tables(r: Tensor) -> Tensor:
    """(16, ...) tables whose bit v says whether v < digit."""
    places = torch.arange(0, DIGIT * DIGITS, DIGIT, device=r.device).view(-1, *[1] * r.dim())
    digits = ((r & LOW) >> places) & 15
    return ((1 << digits) - 1).to(torch.int16)


def negative(m: Tensor, table: Tensor, top: Tensor) -> Tensor:
    """Exclusive-or shares (0 or 1, uint8) of [m - r < 0] for public m (T, ...) and shares of r's tables and top bit.

    1. Look up lt = [v < digit] and eq = [v = digit], which is lt(v - 1) ^ lt(v), for every digit: local.
    2. Put four digits together, four times at once: lt = lt3 ^ eq3 lt2 ^ eq3 eq2 lt1 ^ eq3 eq2 eq1 lt0 (1 round).
    3. Do the same with the four results (1 round); the sign is top(m) ^ top(r) ^ lt.

    2 rounds, 5 bytes for each element of m. Right for |x| < 2^63.
    """
    less, equal = _combine(*_look_up(m, table), bits=4, last=False)
    borrowed, _ = _combine(_spread(less), _spread(equal), bits=1, last=True)
    return borrowed ^ top ^ (logical_shift(m, 63).to(torch.uint8) * (1 - session.rank()))


def intervals(m: Tensor, table: Tensor, top: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Exclusive-or shares of whether x = m - r lies before, between and behind ascending thresholds: (T + 1, ...)."""
    ends = torch.tensor([round(each * 2**FRACTION) for each in thresholds], device=m.device)
    below = negative(m - ends.view(-1, *[1] * m.dim()), table, top)
    everywhere = torch.full_like(below[:1], 1 - session.rank())
    return torch.cat([below, everywhere]) ^ torch.cat([torch.zeros_like(everywhere), below])


def _look_up(m: Tensor, table: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """lt and eq of digits 4 g + k, as bit g of the k-th byte."""
    less = [torch.zeros(m.shape, dtype=torch.uint8, device=m.device) for _ in range(4)]
    equal = [each.clone() for each in less]
    for digit in range(DIGITS):
        value = ((m & LOW) >> (DIGIT * digit)) & 15
        row = (table[digit].to(torch.int32) & 0xFFFF) << 1 | (1 - session.rank())  # nothing is less than digit 0
        pair = row >> value.to(torch.int32)
        group, place = digit // 4, digit % 4
        less[place] |= (((pair >> 1) & 1) << group).to(torch.uint8)
        equal[place] |= (((pair ^ pair >> 1) & 1) << group).to(torch.uint8)
    return less, equal


def _combine(less: list[Tensor], equal: list[Tensor], bits: int, last: bool) -> tuple[Tensor, Tensor]:
    """lt and eq of four neighbours, the lowest first; the last eq is not needed."""
    factors = [less[0], less[1], less[2], equal[1], equal[2], equal[3], *([] if last else [equal[0]])]
    wanted = ((2, 5), (1, 4, 5), (0, 3, 4, 5), *(() if last else ((3, 4, 5, 6),)))
    second, third, fourth, *both = conjunctions(factors, wanted, bits)
    return less[3] ^ second ^ third ^ fourth, both[0] if both else fourth


def _spread(packed: Tensor) -> list[Tensor]:
    """Four bits of a byte as four bytes."""
    return [(packed >> place) & 1 for place in range(4)]
