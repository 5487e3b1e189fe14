"""Matrix products of causal attention: hidden scores are neither dealt nor opened.

A causal mask hides the scores above the diagonal. The product of queries and keys needs no hidden element of its
result, and the product of weights and values opens none of its first factor, whose hidden elements are exact zeros.
"""

import numpy as np
from torch import Tensor

from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.openings import AdditiveOpening
from pi_sim.mpc.primitives.ring import multiply_matrices
from pi_sim.mpc.primitives.rows import CausalRows
from pi_sim.mpc.runtime import Runtime


def visible_count(rows: int, columns: int) -> int:
    """Return the number of visible elements of a matrix of scores."""
    return rows * columns - rows * (rows - 1) // 2


def multiply_queries(rt: Runtime, a: Tensor, b: Tensor, bits: int) -> Tensor:
    """Return a (..., m, k) @ b (..., k, n) at the visible places of scores, anything at the others.

    A Beaver product, right modulo 2^bits: 1 round, bits / 8 (|a| + |b|) bytes; 8 bytes offline per visible score.
    """
    rows = CausalRows.of_scores(a.shape[-2], b.shape[-1])
    mask_a, mask_b, product = rt.correlated(_score_masks(tuple(a.shape), tuple(b.shape), rows))
    masked_a, masked_b = rt.open(AdditiveOpening(a - mask_a, bits), AdditiveOpening(b - mask_b, bits))
    if rt.rank == 0:
        mask_b = mask_b + masked_b
    return multiply_matrices(masked_a, mask_b) + multiply_matrices(mask_a, masked_b) + rows.scatter(product)


def _score_masks(first: Shape, second: Shape, rows: CausalRows) -> Correlation:
    """Return the correlation of masks of both factors, and the visible elements of their product."""
    batch = np.broadcast_shapes(first[:-2], second[:-2])
    visible = TensorSpec((*batch, visible_count(first[-2], second[-1])))
    return Correlation(
        (TensorSpec(first), TensorSpec(second)), (visible,), lambda a, b: (rows.gather(multiply_matrices(a, b)),)
    )


def multiply_weights(rt: Runtime, a: Tensor, b: Tensor, bits: int) -> Tensor:
    """Return a (..., m, n) @ b (..., n, k) for weights `a` that are exact zeros at hidden places.

    A Beaver product, right modulo 2^bits: 1 round, bits / 8 bytes per visible weight and element of b; 8 bytes offline
    per element of the product.
    """
    rows = CausalRows.of_scores(a.shape[-2], a.shape[-1])
    visible = rows.gather(a)
    mask_a, mask_b, product = rt.correlated(_weight_masks(tuple(a.shape), tuple(b.shape), rows))
    opened, masked_b = rt.open(AdditiveOpening(visible - mask_a, bits), AdditiveOpening(b - mask_b, bits))
    if rt.rank == 0:
        mask_b = mask_b + masked_b
    with_opened = multiply_matrices(rows.scatter(opened), mask_b)
    return with_opened + multiply_matrices(rows.scatter(mask_a), masked_b) + product


def _weight_masks(first: Shape, second: Shape, rows: CausalRows) -> Correlation:
    """Return the correlation of a mask of the visible weights, one of the values, and their product."""
    visible = TensorSpec((*first[:-2], visible_count(*first[-2:])))
    product = TensorSpec((*np.broadcast_shapes(first[:-2], second[:-2]), first[-2], second[-1]))
    return Correlation((visible, TensorSpec(second)), (product,), lambda a, b: (multiply_matrices(rows.scatter(a), b),))
