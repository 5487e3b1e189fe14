"""The ring of integers modulo 2^64: fixed point, blocks that fit a cache, and matrix products by limbs on a GPU.

GPUs multiply no matrices of integers. `LimbMatmulMode` computes such products there from products of doubles, bit for
bit. `blockwise` splits long tensors, so that the intermediate results of elementwise functions stay in a core's cache.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WORD_BYTES, FRACTION_BITS = 8, 16
"""Bytes of a word of the ring, and bits of the fraction of a fixed-point number."""

LIMB_BITS = 22
"""Bits of a limb; a word has three. Sums of 2^11 products of two limbs fit the 53 bits of a double."""
MAX_INNER_LENGTH = 2**11
MATMULS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)


class LimbMatmulMode(TorchFunctionMode):
    """Context in which integer matrix products on a device are computed by limbs, CrypTen's included."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in MATMULS and args[0].dtype == torch.int64 and args[0].device.type == self.device.type:
            return matmul_by_limbs(*args)
        return function(*args, **(kwargs or {}))


def matmul_by_limbs(a: Tensor, b: Tensor) -> Tensor:
    """Return a (..., m, k) @ b (..., k, n), the bits of the integer product, by six products of doubles.

    The three products of limbs that are left out would be multiples of 2^66.
    """
    chunks = zip(torch.split(a, MAX_INNER_LENGTH, -1), torch.split(b, MAX_INNER_LENGTH, -2), strict=True)
    products = (_multiply_limbs(list(_split_limbs(left)), list(_split_limbs(right))) for left, right in chunks)
    return torch.stack(list(products)).sum(0)


def _multiply_limbs(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Return the sum of the products of limbs i and j with i + j < 3."""
    pairs = ((i, j) for i in range(3) for j in range(3 - i))
    return torch.stack([(a[i] @ b[j]).long() << LIMB_BITS * (i + j) for i, j in pairs]).sum(0)


def _split_limbs(word: Tensor) -> Iterator[Tensor]:
    """Yield three signed limbs as doubles, the lowest first, of magnitude 2^21 at most."""
    half = 1 << LIMB_BITS - 1
    for _ in range(3):
        limb = ((word + half) & ((1 << LIMB_BITS) - 1)) - half
        yield limb.double()
        word = (word - limb) >> LIMB_BITS


BLOCK_SIZE = 2**14


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
