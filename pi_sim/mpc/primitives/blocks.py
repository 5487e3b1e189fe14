"""Long tensors in blocks: what many operations write one after another stays in a core's cache."""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK_SIZE = 2**14


def blockwise(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """An elementwise function of tensors (..., n), whose results (..., n) depend on the same place alone."""
    length = tensors[0].shape[-1]
    if length <= BLOCK_SIZE or tensors[0].device.type != "cpu":
        return function(*tensors)
    starts = range(0, length, BLOCK_SIZE)
    found = [function(*(each[..., start : start + BLOCK_SIZE] for each in tensors)) for start in starts]
    return tuple(torch.cat(pieces, -1) for pieces in zip(*found, strict=True))
