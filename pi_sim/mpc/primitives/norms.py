"""Rows divided by their root mean square, whatever its size."""

import math
from typing import Any

from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.primitives import products
from pi_sim.mpc.primitives.function import FRACTION_BITS
from pi_sim.mpc.primitives.rows import inverse_root
from pi_sim.mpc.primitives.truncation import truncate

MEAN_FRACTION_BITS = 32
"""Bits of the fraction of 1 / d: with as few as values have, the mean of a wide row would be off by percents."""


def subtract_mean(x: Tensor) -> Tensor:
    """x minus its mean over the last dimension, less than 2^14 in size: 1 round, 8 bytes for each row."""
    total = x.sum(-1, keepdim=True)
    return x - truncate(total * round(2**MEAN_FRACTION_BITS / x.shape[-1]), MEAN_FRACTION_BITS)


def divide_by_rms(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean of x^2 + eps) over the last dimension d.

    1. Square (1 round); add up v = sum of x^2 + d eps, truncated (1 round for each row).
    2. 1 / sqrt(v), with 32 bits of fraction (9 rounds for each row, see `rows`).
    3. Multiply by it and sqrt(d) (1 round), and truncate (1 round).

    13 rounds; 24 bytes for each element.
    """
    width = x.shape[-1]
    v = truncate(products.square(x).sum(-1, keepdim=True), FRACTION_BITS)
    v = v + (round(width * eps * 2**FRACTION_BITS) if session.rank() == 0 else 0)
    root, doublings = math.frexp(math.sqrt(width))
    return truncate(products.multiply(x, inverse_root(v, root)), 2 * FRACTION_BITS - doublings)


def apply_affine(x: Tensor, gamma: Any = None, beta: Any = None) -> Tensor:
    """x gamma + beta: 2 rounds, 16 bytes for each element and 8 for each column with gamma, none without."""
    scaled = x if gamma is None else truncate(products.multiply(x, gamma.share), FRACTION_BITS)
    return scaled if beta is None else scaled + beta.share
