"""A sweep's answers: one line of its table for each."""

from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What was asked, what one inference costs, and how long it takes on one network; or why it has no price."""

    model: str
    size: str
    seq_len: int
    batch: int
    past: int | None
    only_inner: bool
    protocol: str
    machine: str | None
    network: str
    rounds: int | None
    bytes: int | None
    offline_bytes: int | None
    compute_seconds: float | None
    seconds: float | None
    reason: str | None

    @property
    def key(self) -> "Key":
        """What was asked, of which a table has one answer."""
        return self[:ASKED]


Key = tuple[Any, ...]
COLUMNS = Answer._fields
ASKED = COLUMNS.index("rounds")
NO_PRICE = (None,) * (COLUMNS.index("reason") - ASKED)

WHOLE = ("seq_len", "batch", "past", "rounds", "bytes", "offline_bytes")
BROKEN = ("compute_seconds", "seconds")


def read(cells: dict[str, str]) -> Answer:
    """The answer that a line of CSV tells; a `ValueError` or a `TypeError` for any other line."""
    return Answer(**{name: _read(name, cell) for name, cell in cells.items()})


def _read(name: str, cell: str) -> Any:
    if name == "only_inner":
        return {"True": True, "False": False}[cell]
    if name in WHOLE or name in BROKEN:
        return (int if name in WHOLE else float)(cell) if cell else None
    return cell or None
