"""Where a TOML file names a key: tomllib itself tells the line of an error of syntax alone."""

import re
import tomllib
from typing import Any

HEADER = re.compile(r"\s*\[+([^\[\]]+)\]+\s*(?:#.*)?")
ASSIGNMENT = re.compile(r"\s*([^=\[\]{}#]+?)\s*=")

Path = tuple[str, ...]


def line_of(text: str, path: Path) -> int | None:
    """The line, counted from 1, of the deepest part of `path` that the text names; None if it names none of it."""
    named = _named(text)
    return next((named[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in named), None)


def _named(text: str) -> dict[Path, int]:
    """The tables and keys that have a line of their own, each with the first such line."""
    table: Path = ()
    found: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := HEADER.fullmatch(line):
            table = _path(header[1])
            found.setdefault(table, number)
        elif assignment := ASSIGNMENT.match(line):
            found.setdefault((*table, *_path(assignment[1])), number)
    return found


def _path(key: str) -> Path:
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
