"""A sweep's answers: one line of its table for each."""

from typing import Any, NamedTuple


class SweepRow(NamedTuple):
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
    def key(self) -> "ScenarioKey":
        """What was asked, of which a table has one answer."""
        return self[:KEY_LENGTH]


ScenarioKey = tuple[Any, ...]
COLUMNS = SweepRow._fields
KEY_LENGTH = COLUMNS.index("rounds")
EMPTY_RESULT = (None,) * (COLUMNS.index("reason") - KEY_LENGTH)

INTEGER_COLUMNS = ("seq_len", "batch", "past", "rounds", "bytes", "offline_bytes")
FLOAT_COLUMNS = ("compute_seconds", "seconds")


def parse_row(cells: dict[str, str]) -> SweepRow:
    """The answer that a line of CSV tells; a `ValueError` or a `TypeError` for any other line."""
    return SweepRow(**{name: _parse_cell(name, cell) for name, cell in cells.items()})


def _parse_cell(name: str, cell: str) -> Any:
    if name == "only_inner":
        return {"True": True, "False": False}[cell]
    if name in INTEGER_COLUMNS or name in FLOAT_COLUMNS:
        return (int if name in INTEGER_COLUMNS else float)(cell) if cell else None
    return cell or None
