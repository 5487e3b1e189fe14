"""An interrupted training on disk: `DIR/checkpoints` holds its plan, tokenizer and last checkpoint."""

# MERGED: What a finished training leaves: a plain float16 checkpoint, and a record of exactly these weights.

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim import files, records
from pi_sim.errors import RunError, UsageError, warn
from pi_sim.records import TrainingRecord
from pi_sim.training import callbacks, distributed, evaluation, tokenizer
from pi_sim.training.callbacks import TrainerLog, divergence_step
from pi_sim.training.corpus import Corpus
from pi_sim.training.plan import Plan
from pi_sim.zoo.build import save_checkpoint
from pi_sim.zoo.scales import ScaledModel

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
        if folder in new and last_checkpoint(folder) is None and distributed.is_rank_zero():
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


def fold_and_round(model: ScaledModel) -> PreTrainedModel:
    """The model that ships: scales folded, rounded as its checkpoint is and computed with in float32."""
    folded: PreTrainedModel = model.fold()
    rounded: PreTrainedModel = folded.to(checkpoint_dtype(folded)).float().eval()
    return rounded


def checkpoint_dtype(model: PreTrainedModel) -> torch.dtype:
    """The checkpoint's: float16, unless a weight is beyond its largest number, 65,504."""
    overflows = any((weight.half().isinf() & weight.isfinite()).any() for weight in model.parameters())
    return torch.float32 if overflows else torch.float16


def training_record(
    plan: Plan, trained: ScaledModel, encoder: Tokenizer, text: Corpus, ids: Tensor, log: TrainerLog
) -> TrainingRecord:
    """What the training was, what it saw, how its loss went, and how good its rounded weights are."""
    rounded = fold_and_round(trained)
    table = {
        **plan.to_record(),
        "corpus": _corpus_entry(plan, text, ids, divergence_step(log) or plan.steps),
        "parameters": rounded.num_parameters(),
        "trained_parameters": trained.model.num_parameters(),  # a tied head has none of its own
        **_progress_entries(log),
        **_held_out_result(plan, log, lambda: evaluation.measure_quality(rounded, encoder, text, plan.size.context)),
    }
    return TrainingRecord.model_validate(records.json_safe(table))


def _held_out_result(plan: Plan, log: TrainerLog, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The held-out quality; or where the training diverged, which is a result as well."""
    step = divergence_step(log)
    quality = None if step else measure()
    if quality and math.isfinite(quality["loss"]):
        return {"diverged": None, "held_out": quality}
    step = step or plan.steps
    warn(f"{plan.title} diverged: its loss at step {step} of {plan.steps} is no finite number; its record says so.")
    return {"diverged": {"step": step}, "held_out": None}


def write_result(out: Path, trained: ScaledModel, encoder: Tokenizer, record: TrainingRecord) -> None:
    """The checkpoint with its tokenizer and its record, in the place of those that it grew from."""
    model = fold_and_round(trained)
    if checkpoint_dtype(model) == torch.float32:
        warn(f"a weight is beyond the largest float16; {out} holds float32.")

    def fill(folder: Path) -> None:
        save_checkpoint(model.to(checkpoint_dtype(model)), folder)
        files.write_text(folder / tokenizer.TOKENIZER_FILE, encoder.to_str())
        records.save(folder / RECORD_FILE, record)

    move_finished(out, fill)


def summarize_training(record: TrainingRecord) -> str:
    """The result in a few words."""
    quality, diverged = record.held_out, record.diverged
    if quality is None or quality.perplexity is None or quality.bits_per_byte is None:
        return f"diverged at step {diverged.step}" if diverged else "held-out perplexity overflows"
    return f"held-out perplexity {quality.perplexity:.2f}, {quality.bits_per_byte:.3f} bits/byte"


def _corpus_entry(plan: Plan, text: Corpus, ids: Tensor, steps: int) -> dict[str, Any]:
    """The corpus, and how often all of its training split was seen."""
    tokens = steps * plan.tokens_per_step
    return {"name": text.name, "sha256": text.sha256, "tokens_seen": tokens, "epochs": round(tokens / ids.numel(), 4)}


def _progress_entries(log: TrainerLog) -> dict[str, Any]:
    """The loss along the way, and the time and the machine that it took."""
    return {
        "loss_curve": [[entry["step"], round(entry["loss"], 4)] for entry in log if "loss" in entry],
        "observations": callbacks.logged_observations(log),
        "seconds": round(log[-1]["seconds"], 1),
        "processes": distributed.world_size(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
