"""New folders, written whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pi_sim.errors import UsageError


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
