"""The rows of an estimate, and how they are put together: each sum is one of the same three quantities."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from pi_sim.cost.cost import ZERO_COST, Cost, Work

View = Literal["op", "layer", "module", "total"]

LAYER_PATTERN = re.compile(r"(.*?\.\d+)(\.|$)")


@dataclass(frozen=True)
class Row:
    """An operation in a module: how often it occurs, and what all its occurrences cost together."""

    module: str
    op: str
    shapes: str
    count: int
    cost: Cost
    work: Work | None = None
    """What computing takes; None where the protocol does not tell."""
    provenance: str = "derived"
    session_bytes: int = 0
    """Bytes that are sent once in a session, to open the weights that a kernel keeps."""

    def repeated(self, count: int, module: str) -> "Row":
        """So many of this row, in a module."""
        work = None if self.work is None else count * self.work
        session = count * self.session_bytes
        return Row(module, self.op, self.shapes, count * self.count, count * self.cost, work, self.provenance, session)

    @property
    def layer(self) -> str:
        """The numbered block that the module belongs to, or the module itself."""
        found = LAYER_PATTERN.match(self.module)
        return found[1] if found else self.module


class Summable(Protocol):
    """A row, or a part."""

    @property
    def count(self) -> int: ...
    @property
    def cost(self) -> Cost: ...
    @property
    def work(self) -> Work | None: ...


@dataclass(frozen=True)
class Subtotal:
    """Some rows together: how many operations they are, what they cost, and what computing them takes if known."""

    count: int
    cost: Cost
    work: Work | None

    @classmethod
    def sum_of(cls, summands: Iterable[Summable]) -> "Subtotal":
        """The sum, whose work is known if that of every summand is."""
        parts = list(summands)
        works = [part.work for part in parts if part.work is not None]
        work = sum(works, Work()) if len(works) == len(parts) else None
        return cls(sum(part.count for part in parts), sum((part.cost for part in parts), ZERO_COST), work)


VIEW_KEYS: dict[View, Callable[[Row], str]] = {
    "op": lambda row: row.op,
    "layer": lambda row: row.layer,
    "module": lambda row: row.module,
    "total": lambda row: "total",
}
"""What the rows of a view have in common."""


def group_rows(rows: Iterable[Row], view: View) -> dict[str, Subtotal]:
    """The rows of a view as one part each, in order of first occurrence."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(VIEW_KEYS[view](row), []).append(row)
    return {key: Subtotal.sum_of(group) for key, group in groups.items()}
