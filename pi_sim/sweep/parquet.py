"""The table as Parquet, which cannot grow: it is written when the sweep is complete, and until then a CSV beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from pi_sim import files
from pi_sim.errors import MissingError, UsageError
from pi_sim.sweep import kept
from pi_sim.sweep.answers import BROKEN, COLUMNS, WHOLE, Answer

SUFFIX = ".parquet"


@contextmanager
def opened(path: Path) -> Iterator[kept.Table]:
    """The table in a file, which is replaced when all is done; a `MissingError` where pyarrow is."""
    needed(path)
    growing = beside(path)
    with kept.opened(growing) as table:
        if path.exists() and not table.rows:
            table.add(read(path))
        yield table
    write(path, list(table.rows.values()))
    growing.unlink()


def beside(path: Path) -> Path:
    """Where the table grows."""
    return path.with_name(f"{path.name}.part.csv")


def needed(path: Path) -> None:
    """A `MissingError` where pyarrow is."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MissingError(f"{path} needs pyarrow: pip install 'pi-sim[parquet]', or choose a name in .csv.") from None


def write(path: Path, answers: list[Answer]) -> None:
    """The whole file or nothing."""
    import pyarrow as pa
    from pyarrow import parquet

    content = BytesIO()
    parquet.write_table(pa.Table.from_pylist([each._asdict() for each in answers], _schema()), content)
    files.write_bytes(path, content.getvalue())


def read(path: Path) -> list[Answer]:
    """The answers of a file; a `UsageError` for one that holds anything else."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException):
        raise UsageError(f"{path} is not a Parquet file; choose another --out.") from None
    if table.schema.names != list(COLUMNS):
        raise UsageError(f"{path} is not a table of pi-sim sweep, or one of other columns; choose another --out.")
    return [Answer(**row) for row in table.to_pylist()]


def _schema() -> Any:
    import pyarrow as pa

    kinds = {**dict.fromkeys(WHOLE, pa.int64()), **dict.fromkeys(BROKEN, pa.float64()), "only_inner": pa.bool_()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
