"""An interrupted training on disk: `DIR/checkpoints` holds its plan, tokenizer and last checkpoint."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pi_sim import files
from pi_sim.errors import RunError, UsageError
from pi_sim.training import processes

CHECKPOINTS_FOLDER = "checkpoints"
PLAN_FILE = "plan.json"
STATE_FILE = "trainer_state.json"
RECORD_FILE = "record.json"
TORCH_WRITE_ERROR = "inline_container"  # in the message of torch.save where it cannot write: the type is RuntimeError


def prepare_folder(out: Path, plan: dict[str, Any]) -> Path:
    """The folder for checkpoints inside `out`: new, or that of the same training interrupted before."""
    folder = out / CHECKPOINTS_FOLDER
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        files.write_text(folder / PLAN_FILE, json.dumps(plan, indent=1) + "\n")
    elif not (folder / PLAN_FILE).is_file():
        raise UsageError(f"{out} exists already and is no interrupted training; give another --out or remove it.")
    elif _read_json(folder / PLAN_FILE) != plan:
        raise UsageError(
            f"{out} holds an interrupted training with other settings or another corpus, those of "
            f"{folder / PLAN_FILE}; repeat its command to continue it, or give another --out."
        )
    return folder


@contextmanager
def remove_if_refused(out: Path) -> Iterator[None]:
    """Leave nothing of a training that is refused before a checkpoint: it would be taken for an interrupted one."""
    folder = out / CHECKPOINTS_FOLDER
    new = [path for path in (folder, out) if not path.exists()]
    try:
        yield
    except UsageError:
        if folder in new and last_checkpoint(folder) is None and processes.is_rank_zero():
            shutil.rmtree(folder, ignore_errors=True)
            if out in new and out.is_dir():
                out.rmdir()
        raise


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint, if there is one yet: the Trainer writes its state last of all."""
    complete = {int(path.parent.name.split("-")[1]): path.parent for path in folder.glob(f"*/{STATE_FILE}")}
    return str(complete[max(complete)]) if complete else None


def load_trainer_state(checkpoint: str) -> dict[str, Any]:
    """What the Trainer tells of a checkpoint: its step, and the log so far."""
    return dict(_read_json(Path(checkpoint) / STATE_FILE))


def move_finished(out: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write the finished checkpoint, then move it to `out`: its record last, to tell that it is whole."""
    staging = out / CHECKPOINTS_FOLDER / "finished"
    staging.mkdir(exist_ok=True)
    fill(staging)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == RECORD_FILE):
        path.chmod(0o644)  # safetensors makes files for their owner only
        path.replace(out / path.name)
    shutil.rmtree(out / CHECKPOINTS_FOLDER)


@contextmanager
def report_write_errors(out: Path) -> Iterator[None]:
    """Say that `out` cannot be written, whichever library found out: a full disk has three kinds of error."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror or error}.") from None
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and TORCH_WRITE_ERROR not in str(error):
            raise
        raise RunError(f"{out} cannot be written, perhaps because its disk is full: {error}.") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{path} cannot be read; remove its folder and repeat the command.") from None
