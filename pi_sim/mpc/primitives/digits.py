"""Products modulo 2^64 with a matrix that stays put, by the units that some processors have for matrices of bytes.

A word is eight signed digits to the base 256. The product of digits i and j counts 2^(8 (i + j)), which the ring
forgets from i + j = 8 on. The other 36 products of matrices of bytes become eight, for digits of the same i + j stand
side by side. The matrix that stays is the first factor, which the units take as it lies in memory.
"""

import torch
from torch import Tensor

DIGITS = 8
HALVES = int.from_bytes(bytes([128] * DIGITS), signed=True)
"""128 at every digit. Added to a word, then taken off each digit by itself, it leaves digits from -128 to 127."""
FEW = 64
"""Rows below which words are as quick."""
LONGEST = 2**14
"""The first four sums must fit 32 bits: of up to four times as many products of two digits, 2^14 each."""


def quicker(rows: int, length: int, device: torch.device) -> bool:
    """Whether so many rows of so many words are multiplied more quickly by their bytes."""
    return device.type == "cpu" and rows >= FEW and length <= LONGEST and torch.cpu._is_amx_tile_supported()


def fixed(matrix: Tensor) -> Tensor:
    """The digits of a matrix (k, n), the highest first: (n, 8 k) bytes."""
    return _digits(matrix.t()).transpose(1, 2).flip(1).flatten(1)


def product(a: Tensor, matrix: Tensor) -> Tensor:
    """a (m, k) times the matrix (k, n) of which `fixed` found the digits, bit for bit what words give."""
    length = a.shape[-1]
    columns = _digits(a.t()).permute(2, 0, 1).flatten(0, 1)
    sums = [
        torch._int_mm(matrix[:, (DIGITS - count) * length :], columns[: count * length])
        for count in range(1, DIGITS + 1)
    ]
    half = DIGITS // 2
    total = _added_up(sums[half:]).long() << 8 * half  # of what counts 2^32 and more, half a word is enough
    return (total + _added_up([sums[0].long(), *sums[1:half]])).t()


def _digits(matrix: Tensor) -> Tensor:
    """The digits of (m, k) words, the lowest first: (m, k, 8) bytes."""
    return ((matrix.flatten() + HALVES) ^ HALVES).view(torch.int8).view(*matrix.shape, DIGITS)


def _added_up(sums: list[Tensor]) -> Tensor:
    """The first of them and 2^8 times the second and so on, in the first one's words."""
    total, *others = sums
    for place, each in enumerate(others, 1):
        total.add_(each, alpha=1 << 8 * place)
    return total
