"""The table as a CSV file that grows: an interrupted sweep keeps what it finished, and continues there."""

import csv
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import SEEK_END, FileIO, StringIO
from pathlib import Path

from pi_sim.errors import UsageError
from pi_sim.sweep.answers import COLUMNS, ScenarioKey, SweepRow, parse_row

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
