"""Atomic writes of files and new folders, complete or not at all, and the folders of this user."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pi_sim.errors import UsageError


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it. Raises `UsageError` if it cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write binary content in the same way."""
    with _staged(path) as staged:
        staged.write_bytes(content)
        if staged != path:
            staged.replace(path)


def check_writable(path: Path) -> None:
    """Raise the `UsageError` that `write_text` would raise, before hours of work instead of after them."""
    with _staged(path) as staged:
        staged.touch()


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, removed afterwards; `path` itself if it is a device or a pipe."""
    special = path.exists() and not path.is_file() and not path.is_dir()
    staged = path if special else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield staged
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); choose another path.") from None
    finally:
        if not special:
            with suppress(OSError):
                staged.unlink(missing_ok=True)


@contextmanager
def new_folder(out: Path, mode: int = 0o777) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` when the block ends without an error.

    `out` must not exist or be empty. Raises `UsageError` if it is not, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; choose another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            staged = Path(temporary) / out.name
            staged.mkdir(mode)
            yield staged
            staged.replace(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); choose another --out.") from None


def user_folder(variable: str, default: str) -> Path:
    """Return pi-sim's folder of this user: `pi-sim` in the folder that an XDG variable names, or in `default`."""
    return Path(os.environ.get(variable) or os.path.expanduser(default)) / "pi-sim"  # noqa: PTH111
