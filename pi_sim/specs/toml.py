"""TOML files: found in a wheel or in a checkout, read, and checked against a schema."""

# MERGED: Where a TOML file names a key: tomllib itself tells the line of an error of syntax alone.

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pi_sim.errors import UsageError

FactKind = Literal["models", "models/sizes", "protocols", "protocols/published"]


class TomlModel(BaseModel):
    """A checked, read-only TOML table: unknown keys are errors, so a typing mistake cannot pass unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


ALTERNATIVES: dict[FactKind, tuple[str, str]] = {
    "models": (
        "model",
        "a card's .toml file, or, except to train, a checkpoint folder with a config.json; to estimate, also a public "
        "model such as bert-base, or a config's .json file",
    ),
    "models/sizes": ("size", "a .toml file"),
    "protocols": ("protocol", "a .toml file"),
    "protocols/published": ("published source", "a .toml file"),
}
"""What a kind's facts are called, and what may be named instead of one that is known."""
TomlModelT = TypeVar("TomlModelT", bound=TomlModel)


@cache
def data_root() -> Path:
    """The folder that holds `models` and `protocols`: inside an installed package, or the checkout's root."""
    package = Path(__file__).parent.parent
    return package / "facts" if (package / "facts").is_dir() else package.parent


def list_names(kind: FactKind) -> list[str]:
    """The names that `find` accepts, in alphabetical order."""
    return sorted(path.stem for path in (data_root() / kind).glob("*.toml"))


def find_file(kind: FactKind, name: str) -> Path:
    """The TOML file called `name`, or the file that `name` is the path of."""
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UsageError(f"there is no file {name}.")
        return Path(name)
    if name not in list_names(kind):
        noun, alternative = ALTERNATIVES[kind]
        raise UsageError(f"unknown {noun} {name!r}; known: {', '.join(list_names(kind))}, or {alternative}.")
    return data_root() / kind / f"{name}.toml"


def read_toml(schema: type[TomlModelT], path: Path) -> TomlModelT:
    """The file's table as a `schema`; a `UsageError` names the file, the line and the key that is wrong."""
    return validate_table(schema, parse_toml(path), str(path), _read_text(path))


def parse_toml(path: Path) -> dict[str, Any]:
    """The file's table; a `UsageError` names the file and the line that is wrong."""
    try:
        return tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from None


def validate_table(schema: type[TomlModelT], table: dict[str, Any], origin: str, text: str = "") -> TomlModelT:
    """The table as a `schema`; a `UsageError` names its origin, and the key that is wrong with its line in `text`."""
    try:
        return schema.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = tuple(str(part) for part in first["loc"])
        named = f", key {'.'.join(key)!r}" if key else ""  # a table whose keys do not go together has none
        complaint = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{location(origin, text, key)}{named}: {complaint}.") from None


def location(origin: str, text: str, key: tuple[str, ...]) -> str:
    """The file, with the line of `text` that names the key or the table that should."""
    line = toml_line(text, key)
    return f"{origin}, line {line}" if line else origin


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file in UTF-8.") from None


TABLE_HEADER = re.compile(r"\s*\[+([^\[\]]+)\]+\s*(?:#.*)?")
KEY_ASSIGNMENT = re.compile(r"\s*([^=\[\]{}#]+?)\s*=")
KeyPath = tuple[str, ...]


def toml_line(text: str, path: KeyPath) -> int | None:
    """The line, counted from 1, of the deepest part of `path` that the text names; None if it names none of it."""
    named = _key_lines(text)
    return next((named[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in named), None)


def _key_lines(text: str) -> dict[KeyPath, int]:
    """The tables and keys that have a line of their own, each with the first such line."""
    table: KeyPath = ()
    found: dict[KeyPath, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := TABLE_HEADER.fullmatch(line):
            table = _key_path(header[1])
            found.setdefault(table, number)
        elif assignment := KEY_ASSIGNMENT.match(line):
            found.setdefault((*table, *_key_path(assignment[1])), number)
    return found


def _key_path(key: str) -> KeyPath:
    """The parts of a dotted key; none for a line that only looks like one, within a text of several lines."""
    try:
        table: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts: list[str] = []
    while isinstance(table, dict):
        part, table = next(iter(table.items()))
        parts.append(part)
    return tuple(parts)
