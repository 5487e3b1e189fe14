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
from pi_sim.training.divergence import Log, diverged_at
from pi_sim.training.plan import Plan
from pi_sim.zoo.build import save
from pi_sim.zoo.scales import Scaled


def plain(model: Scaled) -> PreTrainedModel:
    """The model that ships: scales folded, rounded as its checkpoint is and computed with in float32."""
    folded: PreTrainedModel = model.fold()
    rounded: PreTrainedModel = folded.to(dtype(folded)).float().eval()
    return rounded


def dtype(model: PreTrainedModel) -> torch.dtype:
    """The checkpoint's: float16, unless a weight is beyond its largest number, 65,504."""
    overflows = any((weight.half().isinf() & weight.isfinite()).any() for weight in model.parameters())
    return torch.float32 if overflows else torch.float16


def record(plan: Plan, trained: Scaled, encoder: Tokenizer, text: Corpus, ids: Tensor, log: Log) -> TrainingRecord:
    """What the training was, what it saw, how its loss went, and how good its rounded weights are."""
    rounded = plain(trained)
    table = {
        **plan.to_record(),
        "corpus": _seen(plan, text, ids, diverged_at(log) or plan.steps),
        "parameters": rounded.num_parameters(),
        "trained_parameters": trained.model.num_parameters(),  # a tied head has none of its own
        **_course(log),
        **_result(plan, log, lambda: held_out.quality(rounded, encoder, text, plan.size.context)),
    }
    return TrainingRecord.model_validate(records.json_safe(table))


def _result(plan: Plan, log: Log, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The held-out quality; or where the training diverged, which is a result as well."""
    step = diverged_at(log)
    quality = None if step else measure()
    if quality and math.isfinite(quality["loss"]):
        return {"diverged": None, "held_out": quality}
    step = step or plan.steps
    warn(f"{plan.title} diverged: its loss at step {step} of {plan.steps} is no finite number; its record says so.")
    return {"diverged": {"step": step}, "held_out": None}


def write(out: Path, trained: Scaled, encoder: Tokenizer, record: TrainingRecord) -> None:
    """The checkpoint with its tokenizer and its record, in the place of those that it grew from."""
    model = plain(trained)
    if dtype(model) == torch.float32:
        warn(f"a weight is beyond the largest float16; {out} holds float32.")

    def fill(folder: Path) -> None:
        save(model.to(dtype(model)), folder)
        files.write_text(folder / tokenizer.FILE, encoder.to_str())
        records.save(folder / checkpoints.RECORD, record)

    checkpoints.finish(out, fill)


def sentence(record: TrainingRecord) -> str:
    """The result in a few words."""
    quality, diverged = record.held_out, record.diverged
    if quality is None or quality.perplexity is None or quality.bits_per_byte is None:
        return f"diverged at step {diverged.step}" if diverged else "held-out perplexity overflows"
    return f"held-out perplexity {quality.perplexity:.2f}, {quality.bits_per_byte:.3f} bits/byte"


def _seen(plan: Plan, text: Corpus, ids: Tensor, steps: int) -> dict[str, Any]:
    """The corpus, and how often all of its training split was seen."""
    tokens = steps * plan.tokens_per_step
    return {"name": text.name, "sha256": text.sha256, "tokens_seen": tokens, "epochs": round(tokens / ids.numel(), 4)}


def _course(log: Log) -> dict[str, Any]:
    """The loss along the way, and the time and the machine that it took."""
    return {
        "loss_curve": [[entry["step"], round(entry["loss"], 4)] for entry in log if "loss" in entry],
        "observations": observed.along(log),
        "seconds": round(log[-1]["seconds"], 1),
        "processes": processes.count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
