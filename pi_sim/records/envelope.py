"""Envelope of every record (the command, code and machine that made it), and its JSON text."""

import json
import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from pi_sim.files import write_text
from pi_sim.provenance import code_fingerprint, command_line, cpu_name, git_commit, installed_versions
from pi_sim.specs import TomlModel

VERSION = 2
RECORD_FILE = "record.json"
"""Name of the record beside a checkpoint or bundle."""
WIDTH = 120

JsonObject = dict[str, Any]


class MachineInfo(TomlModel):
    system: str
    cpu: str
    cores: int | None


class Record(TomlModel):
    """Envelope of every record: its kind, the command and the code that made it, versions and machine."""

    kind: str
    version: Literal[2] = 2
    argv: tuple[str, ...] | None = None  # null where Python code made the record
    code: str | None = None  # fingerprint of code and packages that derived prices depend on, as the price cache has it
    commit: str | None = None  # of a checkout; null for an installed package
    versions: dict[str, str] = Field(default_factory=dict)
    machine: MachineInfo | None = None

    @property
    def command(self) -> str:
        """The command line as text; empty for a record that Python code made."""
        return shlex.join(self.argv or ())

    @property
    def environment(self) -> str:
        """The machine and the versions in a line."""
        versions = ", ".join(f"{name} {version}" for name, version in sorted(self.versions.items()))
        machine = self.machine and f"{self.machine.cpu}, {self.machine.cores} cores, {self.machine.system}"
        return f"{machine or 'unknown machine'}; {versions}"


RecordT = TypeVar("RecordT", bound=Record)


def save(path: Path, record: Record) -> None:
    """Write `record` with the command line, code, versions and machine of this process."""
    write_text(path, dumps(stamp(record)))


def stamp(record: RecordT) -> RecordT:
    """Fill the envelope from this process."""
    return record.model_copy(
        update={
            "argv": command_line(),
            "code": code_fingerprint(),
            "commit": git_commit(),
            "versions": installed_versions(),
            "machine": MachineInfo(system=platform.system(), cpu=cpu_name(), cores=os.cpu_count()),
        }
    )


def json_safe(value: Any) -> Any:
    """Return a JSON value with NaN and infinities, which JSON cannot hold, replaced by None."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def dumps(content: Record | Sequence[Record]) -> str:
    """Return the JSON text of a record, or of several as a list. Elements of a record's lists stay on one line."""
    if isinstance(content, Record):
        return layout_json(content.model_dump(mode="json")) + "\n"
    return "[\n" + ",\n".join(dumps(record).rstrip() for record in content) + "\n]\n"


def layout_json(value: Any, depth: int = 0, used: int = 0) -> str:
    """Lay out a value that follows `used` characters: on one line if it fits, else an item a line.

    A list of numbers is never broken; lists of numbers and strings share a line as far as they fit.
    """
    flat = json.dumps(value, allow_nan=False)
    if not value or not isinstance(value, (dict, list)) or used + len(flat) < WIDTH or _is_numeric(value):
        return flat
    if isinstance(value, dict):
        keys = {key: f"{json.dumps(key)}: " for key in value}
        lines = [text + layout_json(value[key], depth + 1, depth + 1 + len(text)) for key, text in keys.items()]
        return _block("{}", lines, depth)
    items = [json.dumps(item, allow_nan=False) for item in value]
    is_short = all(_is_numeric(item) or not isinstance(item, (dict, list)) for item in value)
    return _block("[]", _packed(items, WIDTH - depth) if is_short else items, depth)


def _is_numeric(value: Any) -> bool:
    """Return whether a value is a list of numbers and nulls."""
    return isinstance(value, list) and all(item is None or isinstance(item, (int, float)) for item in value)


def _packed(items: list[str], width: int) -> list[str]:
    """Join items to lines of at most `width` characters, if a single one is not longer."""
    lines = [items[0]]
    for item in items[1:]:
        if len(lines[-1]) + len(item) + 4 <= width:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines


def _block(brackets: str, lines: list[str], depth: int) -> str:
    indent = "\n" + " " * (depth + 1)
    return brackets[0] + indent + f",{indent}".join(lines) + "\n" + " " * depth + brackets[1]
