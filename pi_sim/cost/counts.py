"""How many operations of which shape one inference takes, whatever the protocol."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from pi_sim.cost.census import Census, label
from pi_sim.cost.estimate import counted
from pi_sim.cost.features import PRODUCTS, factors, result
from pi_sim.graph.ops import Op, Shape


@dataclass(frozen=True)
class Operations:
    """So many operations on one shape: what a matrix holds, and for a product the matrices that it multiplies."""

    op: str
    count: int
    shape: str
    multiplications: int | None


@dataclass(frozen=True)
class Counts:
    """The operations of one inference as AERO (arXiv 2410.13060, table 4) counts them: softmax 144 x 128x128."""

    model: str
    size: str
    seq_len: int
    batch: int
    past: int | None
    operations: list[Operations]

    @property
    def multiplications(self) -> int:
        """Those of all matrix products."""
        return sum(each.multiplications or 0 for each in self.operations)

    def to_json(self) -> dict[str, Any]:
        """The record; `pi_sim.cli.json_help` says what its keys mean."""
        return asdict(self)


def counts(
    model: str, size: str, seq_len: int | None, *, batch: int = 1, past: int | None = None, inner: bool = False
) -> Counts:
    """The operations of what `pi_sim.cost.estimate.estimate` prices, counted by name and shape."""
    length, census = counted(model, size, seq_len, batch, past, inner)
    return Counts(model, label(model, size), length, batch, past, operations(census))


def operations(census: Census) -> list[Operations]:
    """Every operation on matrices counts as one for each of them: a softmax of 12 heads is 12 of them."""
    found: Counter[tuple[str, str, int]] = Counter()
    for (_, op), count in census.counts.items():
        found[op.name, _shape(op), _multiplications(op)] += count * math.prod(result(op)[:-2])
    return [Operations(op, count, shape, count * each if each else None) for (op, shape, each), count in found.items()]


def _shape(op: Op) -> str:
    """The last two dimensions, "128x128"; of a product's factors, "128x64 @ 64x128"."""
    if op.name in PRODUCTS:
        return " @ ".join(map(_matrix, factors(op)))
    return _matrix(result(op))


def _matrix(shape: Shape) -> str:
    return "x".join(map(str, shape[-2:])) or "scalar"


def _multiplications(op: Op) -> int:
    """Of one matrix product."""
    return math.prod(result(op)[-2:]) * factors(op)[0][-1] if op.name in PRODUCTS else 0
