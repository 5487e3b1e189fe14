"""Atomic writes: a file is replaced as a whole or stays as it is."""

# MERGED: New folders, written whole or not at all.

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pi_sim.errors import UsageError


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: under a temporary name first, then renamed. `UsageError` where that fails."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write binary content likewise."""
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
    """Yield a temporary name beside `path`, removed afterwards; `path` itself where it is a device or a pipe."""
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


@contextmanager
def new_folder(out: Path, mode: int = 0o777) -> Iterator[Path]:
    """A folder to be filled, which takes its place when all is done; `out` must not exist yet or be empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; choose another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            inside = Path(temporary) / out.name
            inside.mkdir(mode)
            yield inside
            inside.replace(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); choose another --out.") from None
