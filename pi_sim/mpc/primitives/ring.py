"""Matrix products modulo 2^64 on devices that multiply no matrices of integers."""

# MERGED: What a function by pieces is: lines, and one short Fourier series, between thresholds.
# MERGED: Long tensors in blocks: what many operations write one after another stays in a core's cache.

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WORD_BYTES = 8
"""Bytes of a word of the ring of integers modulo 2^64."""
FRACTION_BITS = 16
"""Bits of a value's fraction."""

LIMB_BITS = 22
"""Bits of a limb, of which a word has three: 2^11 products of two, added up, fit the 53 bits of a double."""
MAX_INNER_LENGTH = 2**11
MATMULS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)


class LimbMatmulMode(TorchFunctionMode):
    """A context in which products of integer matrices on a device are computed by limbs, whoever calls for them."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in MATMULS and args[0].dtype == torch.int64 and args[0].device.type == self.device.type:
            return matmul_by_limbs(*args)
        return function(*args, **(kwargs or {}))


def matmul_by_limbs(a: Tensor, b: Tensor) -> Tensor:
    """a (..., m, k) @ b (..., k, n), bit for bit what integers give, in six products of doubles.

    A GPU has units for them. The three products that are left out would be multiples of 2^66.
    """
    pieces = zip(torch.split(a, MAX_INNER_LENGTH, -1), torch.split(b, MAX_INNER_LENGTH, -2), strict=True)
    products = (_multiply_limbs(list(_split_limbs(one)), list(_split_limbs(other))) for one, other in pieces)
    return torch.stack(list(products)).sum(0)


def _multiply_limbs(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """The sum over limbs i + j < 3."""
    places = ((i, j) for i in range(3) for j in range(3 - i))
    return torch.stack([(a[i] @ b[j]).long() << LIMB_BITS * (i + j) for i, j in places]).sum(0)


def _split_limbs(word: Tensor) -> Iterator[Tensor]:
    """Three signed limbs as doubles, the lowest first: of at most 2^21 in size."""
    half = 1 << LIMB_BITS - 1
    for _ in range(3):
        limb = ((word + half) & ((1 << LIMB_BITS) - 1)) - half
        yield limb.double()
        word = (word - limb) >> LIMB_BITS


BLOCK_SIZE = 2**14


def blockwise(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """An elementwise function of tensors (..., n), whose results (..., n) depend on the same place alone."""
    length = tensors[0].shape[-1]
    if length <= BLOCK_SIZE or tensors[0].device.type != "cpu":
        return function(*tensors)
    starts = range(0, length, BLOCK_SIZE)
    found = [function(*(each[..., start : start + BLOCK_SIZE] for each in tensors)) for start in starts]
    return tuple(torch.cat(pieces, -1) for pieces in zip(*found, strict=True))
