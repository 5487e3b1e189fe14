"""A sweep's answers: one line of its table for each."""

# MERGED: The table as a CSV file that grows: an interrupted sweep keeps what it finished, and continues there.
# MERGED: The table as Parquet, which cannot grow: it is written when the sweep is complete, and until then a CSV beside it.  # noqa: E501

import csv
import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import SEEK_END, BytesIO, FileIO, StringIO
from pathlib import Path
from typing import Any, NamedTuple

from pi_sim import files
from pi_sim.errors import MissingDependencyError, UsageError


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


HEADER = ",".join(COLUMNS) + "\n"


class ResumableCsv:
    """Answers by what was asked; new ones are handed on as text, several lines at once."""

    def __init__(self, append: Callable[[str], object], known: dict[ScenarioKey, SweepRow] | None = None) -> None:
        self.rows = dict(known or {})
        self._append = append
        if known is None:
            append(HEADER)

    def add(self, answers: list[SweepRow]) -> None:
        """Keep some answers."""
        self._append(csv_lines(answers))
        self.rows.update((each.key, each) for each in answers)


def csv_lines(answers: list[SweepRow]) -> str:
    """Answers as CSV, without a header."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(answers)
    return text.getvalue()


@contextmanager
def open_csv(path: Path) -> Iterator[ResumableCsv]:
    """The table in a file, which is made if need be; a `UsageError` for a file that holds anything else."""
    with _open_file(path) as file:
        if not path.is_file():  # a device or a pipe, of which nothing can be read
            yield ResumableCsv(lambda text: _write_bytes(file, text.encode(), path))
            return
        kept = _complete_lines(path.read_bytes(), path)
        known = _parse_rows(kept, path) if kept else None
        file.truncate(len(kept))
        yield ResumableCsv(lambda text: _append_or_restore(file, text.encode(), path), known)


def _open_file(path: Path) -> FileIO:
    """The file, at its end; what is written goes to the system at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab" if path.is_file() else "wb", buffering=0)
    except OSError as error:
        raise _unwritable_error(path, error) from None


def _append_or_restore(file: FileIO, content: bytes, path: Path) -> None:
    """Write all of it, or leave the file as it was."""
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
    """The lines that were written to their ends; nothing but a table, or the beginning of its header, is taken."""
    complete, header = content[: content.rfind(b"\n") + 1], HEADER.encode()
    if complete.startswith(header) if complete else header.startswith(content):
        return complete
    raise UsageError(f"{path} is not a table of pi-sim sweep, or one of other columns; choose another --out.")


def _parse_rows(content: bytes, path: Path) -> dict[ScenarioKey, SweepRow]:
    """The answers of a file by what was asked."""
    found: dict[ScenarioKey, SweepRow] = {}
    reader = csv.reader(StringIO(content.decode(errors="replace")))
    for cells in list(reader)[1:]:
        try:
            answer = parse_row(dict(zip(COLUMNS, cells, strict=True)))
        except (ValueError, KeyError):
            raise UsageError(f"{path} has a line that no sweep wrote, {','.join(cells)!r}; remove it.") from None
        found[answer.key] = answer
    return found


def _unwritable_error(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written ({error.strerror}); choose another place.")


PARQUET_SUFFIX = ".parquet"


def open_table(path: Path) -> AbstractContextManager[ResumableCsv]:
    """Open a resumable table: Parquet by its suffix, else CSV."""
    return open_parquet(path) if path.suffix == PARQUET_SUFFIX else open_csv(path)


@contextmanager
def open_parquet(path: Path) -> Iterator[ResumableCsv]:
    """The table in a file, which is replaced when all is done; a `MissingError` where pyarrow is."""
    require_pyarrow(path)
    growing = partial_path(path)
    with open_csv(growing) as table:
        if path.exists() and not table.rows:
            table.add(read_parquet(path))
        yield table
    write_parquet(path, list(table.rows.values()))
    growing.unlink()


def partial_path(path: Path) -> Path:
    """Where the table grows."""
    return path.with_name(f"{path.name}.part.csv")


def require_pyarrow(path: Path) -> None:
    """A `MissingError` where pyarrow is."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            f"{path} needs pyarrow: pip install 'pi-sim[parquet]', or choose a name in .csv."
        ) from None


def write_parquet(path: Path, answers: list[SweepRow]) -> None:
    """The whole file or nothing."""
    import pyarrow as pa
    from pyarrow import parquet

    content = BytesIO()
    parquet.write_table(pa.Table.from_pylist([each._asdict() for each in answers], _parquet_schema()), content)
    files.write_bytes(path, content.getvalue())


def read_parquet(path: Path) -> list[SweepRow]:
    """The answers of a file; a `UsageError` for one that holds anything else."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException):
        raise UsageError(f"{path} is not a Parquet file; choose another --out.") from None
    if table.schema.names != list(COLUMNS):
        raise UsageError(f"{path} is not a table of pi-sim sweep, or one of other columns; choose another --out.")
    return [SweepRow(**row) for row in table.to_pylist()]


def _parquet_schema() -> Any:
    import pyarrow as pa

    kinds = {
        **dict.fromkeys(INTEGER_COLUMNS, pa.int64()),
        **dict.fromkeys(FLOAT_COLUMNS, pa.float64()),
        "only_inner": pa.bool_(),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
