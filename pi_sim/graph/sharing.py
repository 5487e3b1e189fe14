"""Additive sharing of fixed-point numbers in the ring of integers modulo 2^64."""

import os

import torch
from torch import Tensor
from torch.nn import functional

PRECISION = 16
"""Fractional bits of a weight: CrypTen's default."""


def to_fixed_point(values: Tensor) -> Tensor:
    """Reals as ring elements, rounded to the nearest multiple of 2^-16."""
    return values.double().mul(2**PRECISION).round().long()


def share_tensor(values: Tensor) -> tuple[Tensor, Tensor]:
    """Two shares whose sum modulo 2^64 is `values`; the first is drawn from the system's cryptographic generator."""
    first = torch.frombuffer(bytearray(os.urandom(8 * values.numel())), dtype=torch.long).reshape(values.shape)
    return first, values - first


def one_hot(tokens: Tensor, vocabulary: int) -> Tensor:
    """Token ids (...) as plain ring integers (..., V), one of which is 1."""
    return functional.one_hot(tokens, vocabulary)
