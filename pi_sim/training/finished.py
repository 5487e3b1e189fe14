"""What a finished training leaves: a plain float16 checkpoint, and a record of exactly these weights."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim import files, records
from pi_sim.errors import warn
from pi_sim.records import TrainingRecord
from pi_sim.training import checkpoints, held_out, observed, processes, tokenizer
from pi_sim.training.corpus import Corpus
from pi_sim.training.divergence import TrainerLog, divergence_step
from pi_sim.training.plan import Plan
from pi_sim.zoo.build import save_checkpoint
from pi_sim.zoo.scales import ScaledModel


def fold_and_round(model: ScaledModel) -> PreTrainedModel:
    """The model that ships: scales folded, rounded as its checkpoint is and computed with in float32."""
    folded: PreTrainedModel = model.fold()
    rounded: PreTrainedModel = folded.to(checkpoint_dtype(folded)).float().eval()
    return rounded


def checkpoint_dtype(model: PreTrainedModel) -> torch.dtype:
    """The checkpoint's: float16, unless a weight is beyond its largest number, 65,504."""
    overflows = any((weight.half().isinf() & weight.isfinite()).any() for weight in model.parameters())
    return torch.float32 if overflows else torch.float16


def training_record(plan: Plan, trained: ScaledModel, encoder: Tokenizer, text: Corpus, ids: Tensor, log: TrainerLog) -> TrainingRecord:
    """What the training was, what it saw, how its loss went, and how good its rounded weights are."""
    rounded = fold_and_round(trained)
    table = {
        **plan.to_record(),
        "corpus": _corpus_entry(plan, text, ids, divergence_step(log) or plan.steps),
        "parameters": rounded.num_parameters(),
        "trained_parameters": trained.model.num_parameters(),  # a tied head has none of its own
        **_progress_entries(log),
        **_held_out_result(plan, log, lambda: held_out.measure_quality(rounded, encoder, text, plan.size.context)),
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
        records.save(folder / checkpoints.RECORD_FILE, record)

    checkpoints.move_finished(out, fill)


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
        "observations": observed.logged_observations(log),
        "seconds": round(log[-1]["seconds"], 1),
        "processes": processes.world_size(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
