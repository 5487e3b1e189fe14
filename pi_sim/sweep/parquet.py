"""The table as Parquet, which cannot grow: it is written when the sweep is complete, and until then a CSV beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from pi_sim import files
from pi_sim.errors import MissingDependencyError, UsageError
from pi_sim.sweep import kept
from pi_sim.sweep.answers import COLUMNS, FLOAT_COLUMNS, INTEGER_COLUMNS, SweepRow

PARQUET_SUFFIX = ".parquet"


@contextmanager
def open_parquet(path: Path) -> Iterator[kept.ResumableCsv]:
    """The table in a file, which is replaced when all is done; a `MissingError` where pyarrow is."""
    require_pyarrow(path)
    growing = partial_path(path)
    with kept.open_csv(growing) as table:
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
        raise MissingDependencyError(f"{path} needs pyarrow: pip install 'pi-sim[parquet]', or choose a name in .csv.") from None


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

    kinds = {**dict.fromkeys(INTEGER_COLUMNS, pa.int64()), **dict.fromkeys(FLOAT_COLUMNS, pa.float64()), "only_inner": pa.bool_()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
