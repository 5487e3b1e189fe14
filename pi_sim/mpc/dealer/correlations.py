"""Correlations: tensors that a dealer draws at random, and tensors that are computed from them.

Those that CrypTen requests stand here: Beaver triples, squares, AND triples, and bits in both sharings. Those of our
own kernels stand beside the primitives that use them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pi_sim.graph.ops import Shape


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a correlation, in additive shares in its ring, or, with `bits`, in XOR shares.

    A random part with an `owner` is not shared: that party alone draws it, and the other one holds nothing.
    """

    shape: Shape
    bits: int | None = None
    dtype: torch.dtype = torch.int64
    owner: int | None = None

    @property
    def mask(self) -> int | None:
        """Mask of the random bits of a word, None if all are random."""
        return None if self.bits is None or self.bits == 8 * self.dtype.itemsize else (1 << self.bits) - 1

    @property
    def bytes(self) -> int:
        """Bytes of one share."""
        return math.prod(self.shape) * self.dtype.itemsize

    def split(self, value: Tensor, peer_share: Tensor) -> Tensor:
        """Return the share that completes `peer_share` to `value`; it overwrites `peer_share`."""
        return (torch.sub if self.bits is None else torch.bitwise_xor)(value, peer_share, out=peer_share)

    def join(self, share: Tensor, peer_share: Tensor) -> Tensor:
        """Return the value of two shares, party 0's first, or its owner's value; it overwrites `peer_share`."""
        if self.owner is not None:
            return (share, peer_share)[self.owner]
        return (torch.add if self.bits is None else torch.bitwise_xor)(share, peer_share, out=peer_share)


@dataclass(frozen=True)
class Correlation:
    """Uniformly random parts, and parts that depend on their values; two parties get a share of each.

    Both parties expand their shares of the random parts from seeds. Of the dependent parts party 1 expands its share
    from a seed, and party 0's must be sent. `derive` returns the values of the dependent parts from those of the random
    parts, and of the persistent masks if there are any, as the dealer does. Correlations of the same parts are equal.
    """

    random_parts: tuple[TensorSpec, ...]
    dependent_parts: tuple[TensorSpec, ...]
    derive: Callable[..., tuple[Tensor, ...]] = field(compare=False)


WORD_BITS = 64


def and_triple(first: Shape, second: Shape) -> Correlation:
    """Return the correlation of A, B and A & B, broadcast, in XOR shares of 64-bit words."""
    a, b, product = (TensorSpec(shape, WORD_BITS) for shape in (first, second, np.broadcast_shapes(first, second)))
    return Correlation((a, b), (product,), lambda a, b: (a & b,))


def random_bit(shape: Shape) -> Correlation:
    """Return the correlation of a random bit in XOR shares, and in additive shares."""
    return Correlation((TensorSpec(shape, 1),), (TensorSpec(shape),), lambda bit: (bit,))


Product = Callable[[Tensor, Tensor], Tensor]
PRODUCTS: dict[str, Product] = {"multiply": torch.mul, "matmul": torch.matmul}
"""Operations of CrypTen's Beaver triples."""


def beaver_triple(operation: str, first: Shape, second: Shape, product: Product | None = None) -> Correlation:
    """Return the correlation of A, B and their product, computed by `product` or as CrypTen does."""
    compute, spec = product or PRODUCTS[operation], TensorSpec(_product_shape(operation, first, second))
    return Correlation((TensorSpec(first), TensorSpec(second)), (spec,), lambda a, b: (compute(a, b),))


def square_pair(shape: Shape) -> Correlation:
    """Return the correlation of R and its square."""
    return Correlation((TensorSpec(shape),), (TensorSpec(shape),), lambda r: (r * r,))


def _product_shape(operation: str, first: Shape, second: Shape) -> Shape:
    """Return the shape of a product, without tensors: the dry run counts operations on these."""
    if operation == "multiply":
        return np.broadcast_shapes(first, second)
    return (*np.broadcast_shapes(first[:-2], second[:-2]), *first[-2:-1], second[-1])
