"""The ring of integers modulo 2^64: fixed point, blocks that fit a cache, and matrix products by limbs.

GPUs multiply no matrices of integers, and CPUs without AVX-512 are slow at it. A `Factor` computes such products from
products of doubles where that is quicker, bit for bit. `blockwise` splits long tensors, so that the intermediate
results of elementwise functions stay in a core's cache.
"""

import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WORD_BYTES, FRACTION_BITS = 8, 16
"""Bytes of a word of the ring, and bits of the fraction of a fixed-point number."""

MATMULS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)


class LimbMatmulMode(TorchFunctionMode):
    """Context in which integer matrix products on a device are computed by limbs: CrypTen's, on a GPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in MATMULS and args[0].dtype == torch.int64 and args[0].device.type == self.device.type:
            return Factor(args[1]).multiply_by_limbs(args[0])
        return function(*args, **(kwargs or {}))


def multiply_matrices(a: Tensor, b: Tensor) -> Tensor:
    """Return a (..., m, k) @ b (..., k, n), the bits of the integer product, by the quicker way on this machine."""
    return Factor(b).multiply(a)


DOUBLE_BITS = 53
MAX_INNER_LENGTH = 2**11
"""Longest sum of products of limbs; a longer inner dimension is cut."""
MIN_ROWS = 8
"""Rows of the first factor from which splitting the second one into limbs can pay."""
FEWEST_PRODUCTS = 2
"""Products of limbs of a word and a small weight, modulo 2^48."""
CONVERSION_COST = 1.3
"""Time of a product by limbs, with that of splitting and adding up, over that of its products of doubles."""


@dataclass(frozen=True)
class LimbPlan:
    """Bits of a limb of each factor, and the pairs of limbs whose products matter modulo 2^bits."""

    first_bits: int
    second_bits: int
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, bits: int, magnitude_bits: int, inner: int) -> "LimbPlan":
        """Return the plan of fewest products for words modulo 2^bits and a second factor below 2^magnitude_bits.

        Signed limbs of p and q bits have products below 2^(p + q - 2), of which `inner` must add up exactly.
        """
        available = DOUBLE_BITS + 2 - max(1, (min(inner, MAX_INNER_LENGTH) - 1).bit_length())
        plans = []
        for count in range(1, 5):
            # A carry from the lower limbs must fit the highest one.
            second = -(-min(bits, magnitude_bits + 1 + (count > 1)) // count)
            first = available - second
            if first > 1:
                first = -(-bits // -(-bits // first))
                plans.append(cls(first, second, tuple(_limb_pairs(bits, first, second, count))))
        return min(plans, key=lambda plan: len(plan.pairs))


def _limb_pairs(bits: int, first: int, second: int, second_count: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of limbs that are not multiples of 2^bits together."""
    for i in range(-(-bits // first)):
        yield from ((i, j) for j in range(second_count) if i * first + j * second < bits)


class Factor:
    """The second factor (..., k, n) of matrix products: a small one, such as a plain weight, is split once."""

    def __init__(self, words: Tensor) -> None:
        self.words = words
        self._limbs: dict[int, list[Tensor]] = {}

    @cached_property
    def magnitude_bits(self) -> int:
        """Bits of the largest magnitude among the words."""
        low, high = (int(word) for word in self.words.aminmax())
        return max((~low).bit_length(), high.bit_length())

    def multiply(self, a: Tensor, bits: int = 64) -> Tensor:
        """Return a (..., m, k) @ words, right modulo 2^bits, by the quicker way on this machine."""
        if a.device.type == "meta" or not self._prefers_limbs(a, bits):
            return torch.matmul(a, self.words)
        return self.multiply_by_limbs(a, bits)

    def _prefers_limbs(self, a: Tensor, bits: int) -> bool:
        """Return whether products of doubles are quicker than one of integers, which GPUs do not have."""
        if a.device.type != "cpu":
            return True
        if integer_slowness() < CONVERSION_COST * FEWEST_PRODUCTS:
            return False
        plan = LimbPlan.of(bits, self.magnitude_bits, a.shape[-1])
        if a.shape[-2] < MIN_ROWS and plan.second_bits not in self._limbs:
            return False
        return integer_slowness() > CONVERSION_COST * len(plan.pairs)

    def _split(self, plan: LimbPlan) -> list[Tensor]:
        """Return the limbs; a single one is kept, several would take too much memory for the time that they save."""
        if plan.second_bits in self._limbs:
            return self._limbs[plan.second_bits]
        limbs = list(_split_limbs(self.words, plan.second_bits, 1 + max(j for _, j in plan.pairs)))
        if len(limbs) == 1:
            self._limbs[plan.second_bits] = limbs
        return limbs

    def multiply_by_limbs(self, a: Tensor, bits: int = 64) -> Tensor:
        """Return a (..., m, k) @ words, right modulo 2^bits, as a sum of products of doubles."""
        plan = LimbPlan.of(bits, self.magnitude_bits, a.shape[-1])
        second = self._split(plan)
        first = list(_split_limbs(a, plan.first_bits, 1 + max(i for i, _ in plan.pairs)))
        total: Tensor | None = None
        for i, j in plan.pairs:
            chunks = torch.split(first[i], MAX_INNER_LENGTH, -1), torch.split(second[j], MAX_INNER_LENGTH, -2)
            for left, right in zip(*chunks, strict=True):
                term = (left @ right).long() << i * plan.first_bits + j * plan.second_bits
                total = term if total is None else total.add_(term)
        assert total is not None
        return total


def _split_limbs(word: Tensor, bits: int, count: int) -> Iterator[Tensor]:
    """Yield signed limbs as doubles, the lowest first, of magnitude 2^(bits - 1) at most."""
    half = 1 << bits - 1
    for _ in range(count):
        limb = ((word + half) & ((1 << bits) - 1)) - half
        yield limb.double()
        word = (word - limb) >> bits


@cache
def integer_slowness() -> float:
    """Return the time of a product of integers over that of a product of doubles on this CPU, measured once."""
    integers = torch.ones(PROBE_SHAPE[:2], dtype=torch.int64), torch.ones(PROBE_SHAPE[1:], dtype=torch.int64)
    doubles = tuple(factor.double() for factor in integers)
    for_integers, for_doubles = (
        min(timeit.repeat(partial(torch.matmul, *factors), number=1, repeat=5)) for factors in (integers, doubles)
    )
    return for_integers / for_doubles


PROBE_SHAPE = (64, 256, 256)
"""m, k and n of the products that `integer_slowness` times: milliseconds in all."""
BLOCK_SIZE = 2**16


def blockwise(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Apply an elementwise function to tensors (..., n) in blocks of the last dimension.

    Element j of each result (..., n) must depend on elements j of the tensors alone.
    """
    length = tensors[0].shape[-1]
    if length <= BLOCK_SIZE or tensors[0].device.type != "cpu":
        return function(*tensors)
    starts = range(0, length, BLOCK_SIZE)
    blocks = [function(*(tensor[..., start : start + BLOCK_SIZE] for tensor in tensors)) for start in starts]
    return tuple(torch.cat(parts, -1) for parts in zip(*blocks, strict=True))
