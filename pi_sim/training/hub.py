"""Hugging Face datasets as corpora: `hf:NAME`, or `hf:NAME:COLUMN` where the text is in another column than usual.

NAME is one on the hub, such as codeparrot/codeparrot-clean-valid, or a folder. Its train split is read as a whole: all
text must fit in memory.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pi_sim.errors import UsageError

PREFIX = "hf:"
TEXT_COLUMNS = ("content", "text")  # CodeParrot's, and nearly everybody else's


def absolute_name(name: str) -> str:
    """The name as every working folder understands it."""
    dataset, column = _split_name(name)
    known = str(Path(dataset).resolve()) if Path(dataset).is_dir() else dataset
    return f"{PREFIX}{known}:{column}" if column else f"{PREFIX}{known}"


def read_texts(name: str) -> Iterator[tuple[str, str]]:
    """Each row's name and text, in the dataset's order."""
    dataset, column = _split_name(name)
    rows = _load_rows(dataset)
    for number, text in enumerate(rows[_text_column(dataset, column, rows.column_names)]):
        if isinstance(text, str):
            yield f"row{number:09}", text


def _split_name(name: str) -> tuple[str, str]:
    """The dataset, and the column or nothing."""
    dataset, _, column = name.removeprefix(PREFIX).partition(":")
    return dataset, column


def _load_rows(dataset: str) -> Any:
    """The train split, or the first where none is called so."""
    datasets = _import_datasets()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        splits = datasets.load_dataset(dataset)
    except Exception as error:  # nearly anything: a hub that cannot be reached, a name or a file that is unknown
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise UsageError(f"the dataset {dataset} cannot be loaded: {reason}; check its name and the network.") from None
    return splits["train"] if "train" in splits else next(iter(splits.values()))


def _import_datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError:
        raise UsageError(
            "corpora from Hugging Face need one package more; install it with `pip install 'pi-sim[corpora]'`."
        ) from None


def _text_column(dataset: str, wanted: str, known: list[str]) -> str:
    for column in (wanted,) if wanted else TEXT_COLUMNS:
        if column in known:
            return column
    raise UsageError(
        f"the dataset {dataset} has no column {wanted or ' or '.join(TEXT_COLUMNS)}; name one of its own, "
        f"{', '.join(known)}, such as {PREFIX}{dataset}:{known[0]}."
    )
