"""Records: what a training or a run found, as versioned JSON; every table and figure is rendered from them."""

import json
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from pi_sim import __version__
from pi_sim.errors import UsageError

VERSION = 1
PACKAGES = ("torch", "crypten", "transformers", "tokenizers", "numpy")

Record = dict[str, Any]


def environment() -> Record:
    """The machine and the versions a record was made with."""
    versions = {"python": platform.python_version(), "pi-sim": __version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    machine = {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()}
    return {"versions": versions, "machine": machine}


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: under a temporary name first, then renamed. `UsageError` where that fails."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for what is not text."""
    with _staged(path) as staged:
        staged.write_bytes(content)
        if staged != path:
            staged.replace(path)


def check_writable(path: Path) -> None:
    """Raise the `UsageError` of `write_text` before hours of work instead of after them."""
    with _staged(path) as staged:
        staged.touch()


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, gone afterwards; `path` itself where it is a device or a pipe."""
    special = path.exists() and not path.is_file() and not path.is_dir()
    staged = path if special else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield staged
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); choose another place.") from None
    finally:
        if not special:
            with suppress(OSError):
                staged.unlink(missing_ok=True)


def save(path: Path, kind: str, record: Record) -> None:
    """Write `record` as JSON with its kind, such as "training" or "run", the schema's version and the environment."""
    whole = {"kind": kind, "version": VERSION, **record, **environment()}
    write_text(path, json.dumps(whole, indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The same with None for NaN and infinities: JSON has no words for them."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load(path: Path) -> Record:
    """Read a record; a `UsageError` says which file is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] == VERSION and isinstance(record["kind"], str):
            return dict(record)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UsageError(f"{path} is not a pi-sim record of version {VERSION}; make it anew or remove it.")
