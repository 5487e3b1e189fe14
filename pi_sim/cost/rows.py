"""Rows of an estimate, and their sums by operation, layer or module."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from pi_sim.cost.cost import Cost, Work

View = Literal["op", "layer", "module", "total"]

LAYER_PATTERN = re.compile(r"(.*?\.\d+)(\.|$)")


@dataclass(frozen=True)
class Row:
    """All occurrences of an operation in a module, and their cost together."""

    module: str
    op: str
    shapes: str
    count: int
    cost: Cost
    work: Work | None = None
    """Work of party 0; None if only the cost is known."""
    ahead_work: Work | None = None
    """Work of party 1 before the input is there; likewise."""
    provenance: str = "derived"

    def repeated(self, count: int, module: str) -> "Row":
        """Return this row `count` times, in a module."""
        return replace(
            self,
            module=module,
            count=count * self.count,
            cost=count * self.cost,
            work=None if self.work is None else count * self.work,
            ahead_work=None if self.ahead_work is None else count * self.ahead_work,
        )

    @property
    def layer(self) -> str:
        """The numbered block of the module, or the module itself."""
        match = LAYER_PATTERN.match(self.module)
        return match[1] if match else self.module


def join_rows(rows: Iterable[Row]) -> list[Row]:
    """Return one row for all occurrences of an operation in a module, in order of the first."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.module, row.op, row.shapes), []).append(row)
    return [group[0] if len(group) == 1 else _join_group(group) for group in groups.values()]


def _join_group(rows: list[Row]) -> Row:
    total = Subtotal.sum_of(rows)
    count = sum(row.count for row in rows)
    return replace(rows[0], count=count, cost=total.cost, work=total.work, ahead_work=total.ahead_work)


@dataclass(frozen=True)
class Subtotal:
    """Sum of rows: operations, cost, and the works unless that of one row is unknown."""

    count: int
    cost: Cost
    work: Work | None
    ahead_work: Work | None = None

    @classmethod
    def sum_of(cls, summands: "Iterable[Row | Subtotal]") -> "Subtotal":
        """Return the sum; a work is None if that of any summand is."""
        parts = list(summands)
        works = (_sum_works([part.work for part in parts]), _sum_works([part.ahead_work for part in parts]))
        return cls(sum(part.count for part in parts), Cost.sum_of(part.cost for part in parts), *works)


def _sum_works(works: list[Work | None]) -> Work | None:
    present = [work for work in works if work is not None]
    return Work.sum_of(present) if len(present) == len(works) else None


VIEW_KEYS: dict[View, Callable[[Row], str]] = {
    "op": lambda row: row.op,
    "layer": lambda row: row.layer,
    "module": lambda row: row.module,
    "total": lambda row: "total",
}
"""Key by which a view groups rows."""
