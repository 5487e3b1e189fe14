"""TOML files of a wheel or a checkout: lookup by name, parsing and validation against a schema.

tomllib reports lines of syntax errors only; `toml_line` finds the line of a key that a schema refuses.
"""

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pi_sim.errors import UsageError
from pi_sim.names import describe_closest, describe_closest_file

FactKind = Literal["models", "models/sizes", "protocols", "protocols/published"]


class TomlModel(BaseModel):
    """Validated, read-only TOML table. Unknown keys are errors, so that a misspelt key is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


NOUNS: dict[FactKind, tuple[str, str]] = {
    "models": ("model", "pi-sim models"),
    "models/sizes": ("size", "pi-sim models"),
    "protocols": ("protocol", "pi-sim protocols"),
    "protocols/published": ("published source", ""),
}
"""Noun of each kind of file for error messages, and the command that lists its names."""
TomlModelT = TypeVar("TomlModelT", bound=TomlModel)


@cache
def data_root() -> Path:
    """Return the folder of `models` and `protocols`: in an installed package, or the root of a checkout."""
    package = Path(__file__).parent.parent
    return package / "facts" if (package / "facts").is_dir() else package.parent


def list_names(kind: FactKind) -> list[str]:
    """Return the names that `find_file` accepts, in alphabetical order."""
    return sorted(path.stem for path in (data_root() / kind).glob("*.toml"))


def find_file(kind: FactKind, name: str) -> Path:
    """Return the TOML file called `name`, or the one at that path. Raises `UsageError` if neither exists."""
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise missing_file(Path(name))
        return Path(name)
    if name not in list_names(kind):
        raise unknown_name(kind, name)
    return data_root() / kind / f"{name}.toml"


def missing_file(path: Path) -> UsageError:
    """Return the error about a file that does not exist, with the closest names of its folder."""
    hint = describe_closest_file(path)
    return UsageError(f"there is no file {path}{'; ' * bool(hint)}{hint}.")


def unknown_name(kind: FactKind, name: str, others: Iterable[str] = ()) -> UsageError:
    """Return the error about a name that does not exist, with the closest ones, and the command that lists all.

    Public models count among the models, and `others` are names beside those of the files, such as plugins.
    """
    noun, command = NOUNS[kind]
    public = [path.stem for path in (data_root() / "models/configs").glob("*.json")] if kind == "models" else []
    closest = describe_closest(name, {*list_names(kind), *public, *others})
    hint = f"; {closest}" if closest else ""
    remedy = f"`{command}` lists them" if command else f"known: {', '.join(list_names(kind))}, or a .toml file"
    return UsageError(f"unknown {noun} {name!r}{hint}; {remedy}.")


def read_toml(schema: type[TomlModelT], path: Path) -> TomlModelT:
    """Read a file as a `schema`. Raises `UsageError` with file, line and key of a mistake."""
    return validate_table(schema, parse_toml(path), str(path), _read_text(path))


def parse_toml(path: Path) -> dict[str, Any]:
    """Parse a file. Raises `UsageError` with file and line of a syntax error."""
    try:
        return tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from None


def validate_table(schema: type[TomlModelT], table: dict[str, Any], origin: str, text: str = "") -> TomlModelT:
    """Validate a table against a `schema`. Raises `UsageError` with origin, key and its line in `text`."""
    try:
        return schema.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = tuple(str(part) for part in first["loc"])
        key_text = f", key {'.'.join(key)!r}" if key else ""  # keys that contradict each other have no common key
        complaint = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{location(origin, text, key)}{key_text}: {complaint}.") from None


def location(origin: str, text: str, key: tuple[str, ...]) -> str:
    """Return the file, and the line of `text` that names the key or the table that lacks it."""
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
    """Return the line, counted from 1, of the longest prefix of `path` in the text; None if there is none."""
    lines = _key_lines(text)
    return next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), None)


def _key_lines(text: str) -> dict[KeyPath, int]:
    """Return the first line of every table and key that begins a line."""
    table: KeyPath = ()
    lines: dict[KeyPath, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := TABLE_HEADER.fullmatch(line):
            table = _key_path(header[1])
            lines.setdefault(table, number)
        elif assignment := KEY_ASSIGNMENT.match(line):
            lines.setdefault((*table, *_key_path(assignment[1])), number)
    return lines


def _key_path(key: str) -> KeyPath:
    """Return the parts of a dotted key; none for a line of a multi-line string that looks like a key."""
    try:
        table: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts: list[str] = []
    while isinstance(table, dict):
        part, table = next(iter(table.items()))
        parts.append(part)
    return tuple(parts)
