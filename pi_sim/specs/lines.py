"""Where a TOML file names a key: tomllib itself tells the line of an error of syntax alone."""

import re
import tomllib
from typing import Any

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
