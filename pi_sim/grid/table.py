"""Table of a sweep: one row for each scenario, protocol and network.

A CSV file grows row by row, and an interrupted sweep continues it. Parquet cannot grow: it is written when the sweep is
complete; until then the rows are in a CSV file beside it.
"""

import csv
import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import SEEK_END, BytesIO, FileIO, StringIO
from pathlib import Path
from typing import Any, NamedTuple

from pi_sim import files
from pi_sim.errors import MissingDependencyError, UsageError


class SweepRow(NamedTuple):
    """A scenario under a protocol on a network: its cost and its seconds, or the reason why it has no price.

    Seconds of the network stand apart from those with computing, which are None where a machine's profile is missing or
    a protocol's sources state none. The perplexity is that of a training of the model, None without a record of one.
    """

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
    server_bytes: int | None
    client_bytes: int | None
    ahead_bytes: int | None
    session_bytes: int | None
    offline_bytes: int | None
    network_seconds: float | None
    first_query_network_seconds: float | None
    compute_seconds: float | None
    seconds: float | None
    first_query_seconds: float | None
    perplexity: float | None
    reason: str | None

    @property
    def key(self) -> "ScenarioKey":
        """The columns that identify the row."""
        return self[:KEY_LENGTH]


ScenarioKey = tuple[Any, ...]
COLUMNS = SweepRow._fields
KEY_LENGTH = COLUMNS.index("rounds")
EMPTY_RESULT = (None,) * (COLUMNS.index("perplexity") - KEY_LENGTH)
FLOAT_COLUMNS = COLUMNS[COLUMNS.index("network_seconds") : COLUMNS.index("reason")]
INTEGER_COLUMNS = ("seq_len", "batch", "past", *COLUMNS[KEY_LENGTH : COLUMNS.index("network_seconds")])


def comparable_seconds(rows: Sequence[SweepRow]) -> list[float]:
    """Return the seconds of rows that have a price: with computing if it is known of all of them, else without."""
    with_computing = [row.seconds for row in rows if row.seconds is not None]
    if len(with_computing) == len(rows):
        return with_computing
    return [row.network_seconds for row in rows if row.network_seconds is not None]


def parse_row(cells: dict[str, str]) -> SweepRow:
    """Return the row of a line of CSV; a `ValueError` or a `TypeError` for any other line."""
    return SweepRow(**{name: _parse_cell(name, cell) for name, cell in cells.items()})


def _parse_cell(name: str, cell: str) -> Any:
    if name == "only_inner":
        return {"True": True, "False": False}[cell]
    if name in INTEGER_COLUMNS or name in FLOAT_COLUMNS:
        return (int if name in INTEGER_COLUMNS else float)(cell) if cell else None
    return cell or None


HEADER = ",".join(COLUMNS) + "\n"


class ResumableCsv:
    """Rows by their keys; new rows are passed on as text, several lines at once."""

    def __init__(self, append: Callable[[str], object], rows: dict[ScenarioKey, SweepRow] | None = None) -> None:
        self.rows = dict(rows or {})
        self._append = append
        if rows is None:
            append(HEADER)

    def add(self, rows: list[SweepRow]) -> None:
        """Append rows."""
        self._append(csv_lines(rows))
        self.rows.update((row.key, row) for row in rows)


def csv_lines(rows: list[SweepRow]) -> str:
    """Return rows as CSV, without a header."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def open_csv(path: Path) -> Iterator[ResumableCsv]:
    """Open the table in a CSV file, old or new; a `UsageError` for a file of another kind."""
    with _open_file(path) as file:
        if not path.is_file():  # a device or a pipe, of which nothing can be read
            yield ResumableCsv(lambda text: _write_bytes(file, text.encode(), path))
            return
        content = _complete_lines(path.read_bytes(), path)
        rows = _parse_rows(content, path) if content else None
        file.truncate(len(content))
        yield ResumableCsv(lambda text: _append_or_restore(file, text.encode(), path), rows)


def _open_file(path: Path) -> FileIO:
    """Open the file at its end, without a buffer."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab" if path.is_file() else "wb", buffering=0)
    except OSError as error:
        raise _unwritable_error(path, error) from None


def _append_or_restore(file: FileIO, content: bytes, path: Path) -> None:
    """Write the whole content, or leave the file as it was."""
    before = file.seek(0, SEEK_END)
    try:
        _write_bytes(file, content, path)
    except BaseException:
        file.truncate(before)
        raise


def _write_bytes(file: FileIO, content: bytes, path: Path) -> None:
    try:
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, "no space is left")
    except OSError as error:
        raise _unwritable_error(path, error) from None


def _complete_lines(content: bytes, path: Path) -> bytes:
    """Return the complete lines; a `UsageError` unless the content is a table or the beginning of its header."""
    complete, header = content[: content.rfind(b"\n") + 1], HEADER.encode()
    if complete.startswith(header) if complete else header.startswith(content):
        return complete
    raise UsageError(f"{path} is not a table of pi-sim sweep, or one of other columns; choose another --out.")


def _parse_rows(content: bytes, path: Path) -> dict[ScenarioKey, SweepRow]:
    """Return the rows of a file by their keys."""
    rows: dict[ScenarioKey, SweepRow] = {}
    reader = csv.reader(StringIO(content.decode(errors="replace")))
    for cells in list(reader)[1:]:
        try:
            row = parse_row(dict(zip(COLUMNS, cells, strict=True)))
        except (ValueError, KeyError):
            raise UsageError(f"{path} has a line that no sweep wrote, {','.join(cells)!r}; remove it.") from None
        rows[row.key] = row
    return rows


def _unwritable_error(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written ({error.strerror}); choose another place.")


def open_table(path: Path) -> AbstractContextManager[ResumableCsv]:
    """Open a resumable table: Parquet by its suffix, else CSV."""
    return open_parquet(path) if path.suffix == ".parquet" else open_csv(path)


@contextmanager
def open_parquet(path: Path) -> Iterator[ResumableCsv]:
    """Open the table in a Parquet file, which is replaced at the end; a `MissingDependencyError` without pyarrow."""
    require_pyarrow(path)
    partial = path.with_name(f"{path.name}.part.csv")
    with open_csv(partial) as table:
        if path.exists() and not table.rows:
            table.add(read_parquet(path))
        yield table
    _write_parquet(path, list(table.rows.values()))
    partial.unlink()


def require_pyarrow(path: Path) -> None:
    """Raise a `MissingDependencyError` if pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            f"{path} needs pyarrow: pip install 'pi-sim[parquet]', or choose a name in .csv."
        ) from None


def _write_parquet(path: Path, rows: list[SweepRow]) -> None:
    """Write the whole file or nothing."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {
        **dict.fromkeys(INTEGER_COLUMNS, pa.int64()),
        **dict.fromkeys(FLOAT_COLUMNS, pa.float64()),
        "only_inner": pa.bool_(),
    }
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    content = BytesIO()
    parquet.write_table(pa.Table.from_pylist([row._asdict() for row in rows], schema), content)
    files.write_bytes(path, content.getvalue())


def read_parquet(path: Path) -> list[SweepRow]:
    """Return the rows of a file; a `UsageError` for a file of another kind."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException):
        raise UsageError(f"{path} is not a Parquet file; choose another --out.") from None
    if table.schema.names != list(COLUMNS):
        raise UsageError(f"{path} is not a table of pi-sim sweep, or one of other columns; choose another --out.")
    return [SweepRow(**row) for row in table.to_pylist()]
