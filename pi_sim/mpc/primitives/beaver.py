"""Products of two secrets by Beaver triples, and by fixed operands: weights that are opened under a mask once.

A product has as many bits of fraction as both factors together; truncation is up to the caller. A fixed operand is
opened once per session, so that each call opens its input alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlations import Correlation, Product, TensorSpec, beaver_triple, square_pair
from pi_sim.mpc.openings import WIDE_BITS, AdditiveOpening
from pi_sim.mpc.primitives.ring import multiply_matrices
from pi_sim.mpc.runtime import Runtime

PRODUCTS: dict[str, Product] = {"multiply": torch.mul, "matmul": multiply_matrices}
"""Products of our kernels: of matrices by the quicker way on this machine."""


def multiply(rt: Runtime, a: Tensor, b: Tensor, operation: str = "multiply", bits: int = WIDE_BITS) -> Tensor:
    """Return a * b, broadcast, or a @ b with operation "matmul", right modulo 2^bits for factors that are.

    1. Take shares of random A and B and of their product from the dealer.
    2. Open a - A and b - B (1 round, bits / 8 (|a| + |b|) bytes).
    3. a b = (a - A) (b - B) + (a - A) B + A (b - B) + A B.

    8 |a b| bytes offline. Source: Beaver (CRYPTO 1991).
    """
    product = PRODUCTS[operation]
    correlation = beaver_triple(operation, tuple(a.shape), tuple(b.shape), product)
    mask_a, mask_b, mask_product = rt.correlated(correlation)
    masked_a, masked_b = rt.open(AdditiveOpening(a - mask_a, bits), AdditiveOpening(b - mask_b, bits))
    with_masked_a = product(masked_a, mask_b + masked_b) if rt.rank == 0 else product(masked_a, mask_b)
    return with_masked_a + product(mask_a, masked_b) + mask_product


def square(rt: Runtime, a: Tensor, bits: int = WIDE_BITS) -> Tensor:
    """Return a * a, right modulo 2^bits for an a that is, from a pair (A, A * A).

    1 round, bits / 8 bytes and 8 offline per element.
    """
    mask, mask_square = rt.correlated(square_pair(tuple(a.shape)))
    (masked,) = rt.open(AdditiveOpening(a - mask, bits))
    return 2 * masked * mask + mask_square + (masked * masked if rt.rank == 0 else 0)


@dataclass(frozen=True)
class OpenedWeight:
    """A fixed operand W: the public W - B, this party's share of B, and the dealer's number of the mask B.

    Party 0's `share` has W - B added, which saves it an addition in every product.
    """

    masked: Tensor
    share: Tensor
    mask_id: int


def fixed_operand_triple(first: Shape, columns: int) -> Correlation:
    """Return the correlation of a fresh A of shape `first`, and A @ B for a persistent mask B of `columns` columns."""
    product = TensorSpec((*first[:-1], columns))
    return Correlation((TensorSpec(first),), (product,), lambda a, b: (multiply_matrices(a, b),))


def open_weight_shares(rt: Runtime, shares: list[Tensor]) -> list[OpenedWeight]:
    """Open each matrix under its own persistent mask: 1 round for all, 8 bytes per element."""
    masks = [rt.source.persistent_mask(TensorSpec(tuple(share.shape))) for share in shares]
    masked_values = rt.reveal(*(share - mask for share, (_, mask) in zip(shares, masks, strict=True)))
    return [
        OpenedWeight(masked, mask + masked if rt.rank == 0 else mask, mask_id)
        for masked, (mask_id, mask) in zip(masked_values, masks, strict=True)
    ]


def multiply_by_weight(rt: Runtime, x: Tensor, weight: OpenedWeight) -> Tensor:
    """Return x @ W for a fixed operand W.

    1. Take shares of a fresh A and of A @ B from the dealer.
    2. Open x - A (1 round, 8 |x| bytes).
    3. x W = (x - A) (W - B) + (x - A) B + A (W - B) + A B.

    8 |x W| bytes offline. B masks W alone, and no A is used twice.
    """
    mask, mask_product = rt.correlated(fixed_operand_triple(tuple(x.shape), weight.masked.shape[-1]), weight.mask_id)
    (masked,) = rt.reveal(x - mask)
    return multiply_matrices(masked, weight.share) + multiply_matrices(mask, weight.masked) + mask_product
