"""An interrupted training on disk: `DIR/checkpoints` holds its plan, tokenizer and last checkpoint."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pi_sim import records
from pi_sim.errors import UsageError

FOLDER = "checkpoints"
PLAN = "plan.json"
STATE = "trainer_state.json"


def prepare(out: Path, plan: dict[str, Any]) -> Path:
    """The folder for checkpoints inside `out`: new, or that of the same training interrupted before."""
    folder = out / FOLDER
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        records.write_text(folder / PLAN, json.dumps(plan, indent=1) + "\n")
    elif not (folder / PLAN).is_file():
        raise UsageError(f"{out} exists already and is no interrupted training; give another --out or remove it.")
    elif json.loads((folder / PLAN).read_text(encoding="utf-8")) != plan:
        raise UsageError(
            f"{out} holds an interrupted training with other settings or another corpus, those of "
            f"{folder / PLAN}; repeat its command to continue it, or give another --out."
        )
    return folder


def last(folder: Path) -> str | None:
    """The newest complete checkpoint, if there is one yet: the Trainer writes its state last of all."""
    complete = {int(path.parent.name.split("-")[1]): path.parent for path in folder.glob(f"*/{STATE}")}
    return str(complete[max(complete)]) if complete else None


def finish(out: Path, fill: Callable[[Path], None]) -> None:
    """Put the finished checkpoint, written by `fill`, in the place of `out`: whole or not at all."""
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        fill(staging)
    except BaseException:
        shutil.rmtree(staging)
        raise
    _readable(staging)
    interrupted = staging.with_name(f"{staging.name}.interrupted")
    out.rename(interrupted)
    staging.rename(out)
    shutil.rmtree(interrupted)


def _readable(folder: Path) -> None:
    """Temporary files are made for their owner only; a finished checkpoint is for everyone."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
