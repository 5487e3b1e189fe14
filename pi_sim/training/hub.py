"""Hugging Face datasets as corpora: `hf:NAME`, or `hf:NAME:COLUMN` for text in a column of another name.

NAME is a dataset on the hub, such as codeparrot/codeparrot-clean-valid, or a folder. The full train split is read and
must fit in memory.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pi_sim.errors import UsageError

PREFIX = "hf:"
TEXT_COLUMNS = ("content", "text")
"""Names of the text column: CodeParrot's, and that of nearly every other dataset."""


def absolute_name(name: str) -> str:
    """Return the name with an absolute path where it means a folder, so that it holds in any working directory."""
    dataset, column = _split_name(name)
    absolute = str(Path(dataset).resolve()) if Path(dataset).is_dir() else dataset
    return f"{PREFIX}{absolute}:{column}" if column else f"{PREFIX}{absolute}"


def read_texts(name: str) -> Iterator[tuple[str, str]]:
    """Yield each row's name and text, in the dataset's order; rows without text are skipped."""
    dataset, column = _split_name(name)
    rows = _load_rows(dataset)
    for number, text in enumerate(rows[_text_column(dataset, column, rows.column_names)]):
        if isinstance(text, str):
            yield f"row{number:09}", text


def _split_name(name: str) -> tuple[str, str]:
    """Return the dataset, and the column or an empty string."""
    dataset, _, column = name.removeprefix(PREFIX).partition(":")
    return dataset, column


def _load_rows(dataset: str) -> Any:
    """Return the train split, or the first split of a dataset that has none of that name."""
    datasets = _import_datasets()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        splits = datasets.load_dataset(dataset)
    except Exception as error:  # of many types: an unreachable hub, an unknown name, a broken file
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise UsageError(f"the dataset {dataset} cannot be loaded: {reason}; check its name and the network.") from None
    return splits["train"] if "train" in splits else next(iter(splits.values()))


def _import_datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError:
        raise UsageError(
            "corpora from Hugging Face need another package; install it with `pip install 'pi-sim[corpora]'`."
        ) from None


def _text_column(dataset: str, chosen: str, columns: list[str]) -> str:
    for column in (chosen,) if chosen else TEXT_COLUMNS:
        if column in columns:
            return column
    raise UsageError(
        f"the dataset {dataset} has no column {chosen or ' or '.join(TEXT_COLUMNS)}; name one of its own, "
        f"{', '.join(columns)}, such as {PREFIX}{dataset}:{columns[0]}."
    )
