"""How many operations of which shape one inference takes, whatever the protocol."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from pi_sim.cost.census import Census, size_label
from pi_sim.cost.estimate import scenario_census
from pi_sim.cost.features import PRODUCT_OPS, factor_shapes, result_shape
from pi_sim.graph.ops import Op, Shape


@dataclass(frozen=True)
class OpCount:
    """So many operations on one shape: what a matrix holds, and for a product the matrices that it multiplies."""

    op: str
    count: int
    shape: str
    multiplications: int | None


@dataclass(frozen=True)
class OpCounts:
    """The operations of one inference as AERO (arXiv 2410.13060, table 4) counts them: softmax 144 x 128x128."""

    model: str
    size: str
    seq_len: int
    batch: int
    past: int | None
    operations: list[OpCount]

    @property
    def multiplications(self) -> int:
        """Those of all matrix products."""
        return sum(each.multiplications or 0 for each in self.operations)

    def to_json(self) -> dict[str, Any]:
        """The record; `pi_sim.cli.json_help` says what its keys mean."""
        return asdict(self)


def op_counts(
    model: str, size: str, seq_len: int | None, *, batch: int = 1, past: int | None = None, inner: bool = False
) -> OpCounts:
    """The operations of what `pi_sim.cost.estimate.estimate` prices, counted by name and shape."""
    length, census = scenario_census(model, size, seq_len, batch, past, inner)
    return OpCounts(model, size_label(model, size), length, batch, past, count_by_shape(census))


def count_by_shape(census: Census) -> list[OpCount]:
    """Every operation on matrices counts as one for each of them: a softmax of 12 heads is 12 of them."""
    found: Counter[tuple[str, str, int]] = Counter()
    for (_, op), count in census.counts.items():
        found[op.name, _shape_text(op), _multiplication_count(op)] += count * math.prod(result_shape(op)[:-2])
    return [OpCount(op, count, shape, count * each if each else None) for (op, shape, each), count in found.items()]


def _shape_text(op: Op) -> str:
    """The last two dimensions, "128x128"; of a product's factors, "128x64 @ 64x128"."""
    if op.name in PRODUCT_OPS:
        return " @ ".join(map(_matrix_text, factor_shapes(op)))
    return _matrix_text(result_shape(op))


def _matrix_text(shape: Shape) -> str:
    return "x".join(map(str, shape[-2:])) or "scalar"


def _multiplication_count(op: Op) -> int:
    """Of one matrix product."""
    return math.prod(result_shape(op)[-2:]) * factor_shapes(op)[0][-1] if op.name in PRODUCT_OPS else 0
