"""Checkpoints of a training: interrupted in `OUT/checkpoints`, finished in `OUT` as plain float16 with a record.

`OUT/checkpoints` holds the plan, the tokenizer and the Trainer's last checkpoint. The record of a finished training
describes the weights as rounded in the checkpoint.
"""

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
from pi_sim.records import RECORD_FILE, Record, TrainingRecord
from pi_sim.training import distributed, evaluation
from pi_sim.training.callbacks import OBSERVATION_KEY, TrainerLog, divergence_step
from pi_sim.training.corpus import TOKENIZER_FILE, Corpus
from pi_sim.training.plan import Plan
from pi_sim.zoo.build import save_checkpoint
from pi_sim.zoo.scales import ScaledModel

CHECKPOINTS_FOLDER = "checkpoints"
PLAN_FILE = "plan.json"
STATE_FILE = "trainer_state.json"
TORCH_WRITE_ERROR = "inline_container"
"""Part of the message of torch.save where it cannot write, which is only a RuntimeError."""


def prepare_folder(out: Path, plan: dict[str, Any]) -> Path:
    """Return the folder for checkpoints inside `out`: new, or that of the same training, interrupted before.

    Raises `UsageError` where `out` holds anything else.
    """
    folder = out / CHECKPOINTS_FOLDER
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        files.write_text(folder / PLAN_FILE, json.dumps(plan, indent=1) + "\n")
    elif not (folder / PLAN_FILE).is_file():
        raise UsageError(f"{out} exists already and is not an interrupted training; give another --out or remove it.")
    elif _read_json(folder / PLAN_FILE) != plan:
        raise UsageError(
            f"{out} holds an interrupted training with other settings or another corpus, those of "
            f"{folder / PLAN_FILE}; repeat its command to continue it, or give another --out."
        )
    return folder


@contextmanager
def remove_if_refused(out: Path) -> Iterator[None]:
    """Remove new folders of a training that is refused before its first checkpoint, which would look interrupted."""
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
    """Return the newest complete checkpoint, or None; the Trainer writes the state file of a checkpoint last."""
    complete = {int(path.parent.name.split("-")[1]): path.parent for path in folder.glob(f"*/{STATE_FILE}")}
    return str(complete[max(complete)]) if complete else None


def load_trainer_state(checkpoint: str) -> dict[str, Any]:
    """Return the Trainer's state at a checkpoint, including its step and its log."""
    return dict(_read_json(Path(checkpoint) / STATE_FILE))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{path} cannot be read; remove its folder and repeat the command.") from None


@contextmanager
def report_write_errors(out: Path) -> Iterator[None]:
    """Turn every error of a full disk, of which the libraries have three kinds, into a `RunError` that names `out`."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror or error}.") from None
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and TORCH_WRITE_ERROR not in str(error):
            raise
        raise RunError(f"{out} cannot be written, perhaps because its disk is full: {error}.") from None


def write_result(out: Path, trained: ScaledModel, tokenizer: Tokenizer, record: TrainingRecord) -> None:
    """Write the finished checkpoint with its tokenizer and record, and remove the Trainer's checkpoints."""
    model = fold_and_round(trained)
    if checkpoint_dtype(model) == torch.float32:
        warn(f"a weight is beyond the largest float16; {out} holds float32.")
    move_finished(out, lambda folder: write_checkpoint(folder, model, tokenizer, record))


def write_checkpoint(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, record: Record) -> None:
    """Write the model in the checkpoint's dtype, its tokenizer and its record."""
    save_checkpoint(model.to(checkpoint_dtype(model)), folder)
    files.write_text(folder / TOKENIZER_FILE, tokenizer.to_str())
    records.save(folder / RECORD_FILE, record)


def move_finished(out: Path, write_files: Callable[[Path], None]) -> None:
    """Let `write_files` fill a staging folder, then move its files to `out`, the record last: it marks completion."""
    staging = out / CHECKPOINTS_FOLDER / "finished"
    staging.mkdir(exist_ok=True)
    write_files(staging)
    for path in sorted(staging.iterdir(), key=lambda path: path.name == RECORD_FILE):
        path.chmod(0o644)  # safetensors creates files that only their owner can read
        path.replace(out / path.name)
    shutil.rmtree(out / CHECKPOINTS_FOLDER)


def fold_and_round(model: ScaledModel) -> PreTrainedModel:
    """Return the final model: scales folded, weights rounded as in the checkpoint but stored as float32."""
    folded: PreTrainedModel = model.fold()
    rounded: PreTrainedModel = folded.to(checkpoint_dtype(folded)).float().eval()
    return rounded


def checkpoint_dtype(model: PreTrainedModel) -> torch.dtype:
    """Return float16, or float32 if a finite weight exceeds the largest float16, 65,504."""
    overflows = any((weight.half().isinf() & weight.isfinite()).any() for weight in model.parameters())
    return torch.float32 if overflows else torch.float16


def training_record(
    plan: Plan, trained: ScaledModel, tokenizer: Tokenizer, corpus: Corpus, ids: Tensor, log: TrainerLog
) -> TrainingRecord:
    """Return the record of a finished training on chunks `ids` (N, T), with the quality of the rounded weights.

    A training that diverged has its step in place of a quality, and a warning says so.
    """
    rounded, step = fold_and_round(trained), divergence_step(log)
    tokens = (step or plan.steps) * plan.tokens_per_step
    epochs = round(tokens / ids.numel(), 4)
    quality = None if step else evaluation.measure_quality(rounded, tokenizer, corpus, plan.size.context)
    if quality is None or not math.isfinite(quality["loss"]):
        step, quality = step or plan.steps, None
        warn(f"{plan.title} diverged: its loss at step {step} of {plan.steps} is not finite; the record says so.")
    table = {
        **plan.to_record(),
        "corpus": {"name": corpus.name, "sha256": corpus.sha256, "tokens_seen": tokens, "epochs": epochs},
        "parameters": rounded.num_parameters(),
        "trained_parameters": trained.model.num_parameters(),  # a tied head has none of its own
        **_progress_entries(log),
        "diverged": {"step": step} if step else None,
        "held_out": quality,
    }
    return TrainingRecord.model_validate(records.json_safe(table))


def _progress_entries(log: TrainerLog) -> dict[str, Any]:
    """Return loss curve, observations, seconds and hardware."""
    return {
        "loss_curve": [[entry["step"], round(entry["loss"], 4)] for entry in log if "loss" in entry],
        "observations": [entry[OBSERVATION_KEY] for entry in log if OBSERVATION_KEY in entry],
        "seconds": round(log[-1]["seconds"], 1),
        "processes": distributed.world_size(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def summarize_training(record: TrainingRecord) -> str:
    """Return the result in a few words."""
    quality, diverged = record.held_out, record.diverged
    if quality is None or quality.perplexity is None or quality.bits_per_byte is None:
        return f"diverged at step {diverged.step}" if diverged else "held-out perplexity overflows"
    return f"held-out perplexity {quality.perplexity:.2f}, {quality.bits_per_byte:.3f} bits/byte"
