"""Products with a cache of keys or values: every row is opened once, under a mask that lasts, and read at every step.

A decoding step appends a row to the keys and one to the values of each layer. The dealer keeps the masks B of all rows;
for the other factor of each product it deals a fresh mask A and A B. So a step opens its own rows and the other factor:

    a b = (a - A) (b - B) + (a - A) B + A (b - B) + A B

No A is used twice, and B masks these rows alone: Beaver (CRYPTO 1991), with one factor opened before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pi_sim.errors import RunError
from pi_sim.graph.ops import Shape
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.openings import WIDE_BITS, AdditiveOpening
from pi_sim.mpc.primitives.causal import visible_count
from pi_sim.mpc.primitives.ring import multiply_matrices
from pi_sim.mpc.primitives.rows import CausalRows
from pi_sim.mpc.runtime import Runtime


@dataclass
class CachedRows:
    """Rows of keys or values: this party's share of them, and once a product has read them, their opening.

    `masked` is the public b - B, right modulo 2^`bits`; `mask` this party's share of B, `mask_id` the dealer's number.
    """

    share: Tensor
    masked: Tensor | None = None
    mask: Tensor = field(default_factory=lambda: torch.empty(0))
    mask_id: int = -1
    bits: int = 0

    def draw_mask(self, rt: Runtime, bits: int) -> AdditiveOpening:
        """Draw the mask B; return the opening of b - B."""
        self.bits = bits
        self.mask_id, self.mask = rt.source.persistent_mask(TensorSpec(tuple(self.share.shape)))
        return AdditiveOpening(self.share - self.mask, bits)


Arrangement = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True)
class CachedFactor:
    """The second factor of a product: rows of the cache, as structural operations have arranged them."""

    rows: tuple[CachedRows, ...]
    arrange: Arrangement

    @classmethod
    def of_rows(cls, rows: Sequence[CachedRows]) -> "CachedFactor":
        """Return rows (..., m, d) one behind the other."""
        return cls(tuple(rows), lambda tensors: tensors[0] if len(tensors) == 1 else torch.cat(tensors, -2))

    def append(self, other: "CachedFactor") -> "CachedFactor":
        """Return the rows of both, neither of which has been rearranged."""
        return CachedFactor.of_rows((*self.rows, *other.rows))

    @classmethod
    def combined(cls, factors: Sequence["CachedFactor"], function: Callable[[list[Tensor]], Tensor]) -> "CachedFactor":
        """Return several factors behind a structural operation on all of them."""

        def arrange(tensors: list[Tensor]) -> Tensor:
            remaining = iter(tensors)
            return function([factor.arrange([next(remaining) for _ in factor.rows]) for factor in factors])

        return cls(tuple(rows for factor in factors for rows in factor.rows), arrange)

    @classmethod
    def without_data(cls, rt: Runtime, shape: Shape, fresh: int) -> "CachedFactor":
        """Return a factor of a shape for a dry run: `fresh` elements are still to be opened, others were."""
        empty = torch.empty(shape, dtype=torch.long, device="meta")
        opened = CachedRows(empty, masked=empty)
        opened.draw_mask(rt, WIDE_BITS)
        rows = (opened, CachedRows(empty.new_empty(fresh))) if fresh else (opened,)
        return cls(rows, lambda tensors: empty)


@dataclass(frozen=True)
class Visibility:
    """Elements that causal attention needs of the first factor, or of the product; all of them by default."""

    scores: bool = False
    weights: bool = False


def multiply_cached(rt: Runtime, a: Tensor, b: CachedFactor, bits: int, visible: Visibility) -> Tensor:
    """Return a (..., m, k) @ b (..., k, n), right modulo 2^bits.

    1. Open a - A, and b - B of the rows that no product has read before (1 round, bits / 8 bytes per element).
    2. a b follows from shares of A, B and A B.

    8 bytes offline per element of the product. Hidden weights are not opened, hidden scores neither dealt nor right.
    """
    fresh = [rows for rows in b.rows if rows.masked is None]
    if any(rows.bits < bits for rows in b.rows if rows.masked is not None):
        raise RunError(f"a product reads {bits} bits of cached rows that were opened with fewer.")
    openings = [rows.draw_mask(rt, bits) for rows in fresh]
    columns = b.arrange([rows.share for rows in b.rows])
    shape = tuple(columns.shape)
    hidden = CausalRows.of_scores(a.shape[-2], a.shape[-1] if visible.weights else shape[-1])
    opened_a = hidden.gather(a) if visible.weights else a
    correlation = _masked_product(tuple(a.shape), shape, b.arrange, hidden, visible)
    mask_a, product = rt.correlated(correlation, *(rows.mask_id for rows in b.rows))
    masked_a, *masked_rows = rt.open(AdditiveOpening(opened_a - mask_a, bits), *openings)
    for rows, masked in zip(fresh, masked_rows, strict=True):
        rows.masked = masked
    masked_b = b.arrange([rows.masked for rows in b.rows])  # type: ignore[misc]
    mask_b = b.arrange([rows.mask for rows in b.rows])
    if visible.weights:
        masked_a, mask_a = hidden.scatter(masked_a), hidden.scatter(mask_a)
    if visible.scores:
        product = hidden.scatter(product)
    public_b = mask_b + masked_b if rt.rank == 0 else mask_b
    return multiply_matrices(masked_a, public_b) + multiply_matrices(mask_a, masked_b) + product


def _masked_product(
    first: Shape, second: Shape, arrange: Arrangement, hidden: CausalRows, visible: Visibility
) -> Correlation:
    """Return the correlation of a mask A of the first factor, and its product with the masks of the cached rows."""
    batch = np.broadcast_shapes(first[:-2], second[:-2])
    mask = (*first[:-2], visible_count(*first[-2:])) if visible.weights else first
    elements = (visible_count(first[-2], second[-1]),) if visible.scores else (first[-2], second[-1])

    def derive(a: Tensor, *rows: Tensor) -> tuple[Tensor]:
        product = multiply_matrices(hidden.scatter(a) if visible.weights else a, arrange(list(rows)))
        return (hidden.gather(product) if visible.scores else product,)

    return Correlation((TensorSpec(mask),), (TensorSpec((*batch, *elements)),), derive)
