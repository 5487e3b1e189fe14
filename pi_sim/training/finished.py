"""What a finished training leaves: a plain float16 checkpoint, and a record of exactly these weights."""

import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim import records
from pi_sim.errors import warn
from pi_sim.training import checkpoints, held_out, observed, tokenizer
from pi_sim.training.corpus import Corpus
from pi_sim.training.plan import Plan
from pi_sim.zoo.build import save
from pi_sim.zoo.scales import Scaled

Log = list[dict[str, Any]]


def plain(model: Scaled) -> PreTrainedModel:
    """The model that ships: scales folded, rounded to float16 and computed with in float32."""
    rounded: PreTrainedModel = model.fold().half().float().eval()
    return rounded


def record(plan: Plan, trained: Scaled, encoder: Tokenizer, text: Corpus, ids: Tensor, log: Log) -> records.Record:
    """What the training was, what it saw, how its loss went, and how good its rounded weights are."""
    rounded = plain(trained)
    found = {
        **plan.record(),
        "corpus": _seen(plan, text, ids),
        "parameters": rounded.num_parameters(),
        "trained_parameters": trained.model.num_parameters(),  # a tied head has none of its own
        **_course(log),
        "held_out": held_out.quality(rounded, encoder, text, plan.size.context),
    }
    if not math.isfinite(found["held_out"]["loss"]):
        warn(f"{plan.title} diverged: its held-out loss is not a number.")
    return found


def write(out: Path, trained: Scaled, encoder: Tokenizer, found: records.Record) -> None:
    """The checkpoint with its tokenizer and its record, in the place of those that it grew from."""

    def fill(folder: Path) -> None:
        save(plain(trained).half(), folder)
        records.write_text(folder / tokenizer.FILE, encoder.to_str())
        records.save(folder / checkpoints.RECORD, "training", _finite(found))

    checkpoints.finish(out, fill)


def _seen(plan: Plan, text: Corpus, ids: Tensor) -> dict[str, Any]:
    """The corpus, and how often all of its training split was seen."""
    epochs = round(plan.tokens / ids.numel(), 4)
    return {"name": text.name, "sha256": text.sha256, "tokens_seen": plan.tokens, "epochs": epochs}


def _course(log: Log) -> dict[str, Any]:
    """The loss along the way, and the time and the machine that it took."""
    return {
        "loss_curve": [[entry["step"], round(entry["loss"], 4)] for entry in log if "loss" in entry],
        "observations": observed.along(log),
        "seconds": round(log[-1]["seconds"], 1),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinities: JSON has no words for them."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
