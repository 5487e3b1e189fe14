"""Training a model card from scratch with transformers' Trainer, to a checkpoint in Hugging Face's format."""

import math
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from pi_sim import records
from pi_sim.errors import RunError, UsageError, warn
from pi_sim.training import checkpoints, corpus, finished, held_out, manifest, tokenizer
from pi_sim.training.corpus import Corpus
from pi_sim.training.finished import Log
from pi_sim.training.observed import Observe
from pi_sim.training.plan import Plan
from pi_sim.training.progress import Report, Stop
from pi_sim.zoo.build import WEIGHTS, build, quiet
from pi_sim.zoo.scales import Scaled

SEQUENCES_AT_ONCE = 32  # larger batches are accumulated: the logits of 32 x 128 tokens fill enough memory
CURVE_POINTS = 200
CHECKPOINTS = 10  # in a training that nothing interrupts


class InterruptionError(RunError):
    """Ctrl-C: the training can be continued."""

    exit_status = 128 + signal.SIGINT


class Chunks(Dataset[dict[str, Tensor]]):
    """Token ids (N, T) as the Trainer takes them."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[index]}


def train(plan: Plan, out: Path) -> records.Record:
    """Train, or continue the interrupted training in `out`; the finished checkpoint's record."""
    try:
        return _train(plan, out.resolve())
    except KeyboardInterrupt:
        raise InterruptionError(f"stopped; repeat the command to continue in {out}.") from None


def _train(plan: Plan, out: Path) -> records.Record:
    _check(plan, out)
    text = corpus.load(plan.corpus)
    manifest.tell_differences(text)
    with checkpoints.writing(out):
        return _train_on(text, plan, out)


def _check(plan: Plan, out: Path) -> None:
    """Refuse what would make the record untrue."""
    if torch.cuda.device_count() > 1:
        raise UsageError("each of several GPUs would add a batch of its own; choose one: CUDA_VISIBLE_DEVICES=0.")
    if out.is_relative_to(plan.corpus):
        raise UsageError(f"{out} lies in the corpus {plan.corpus} and would change it; give another --out.")


def _train_on(text: Corpus, plan: Plan, out: Path) -> records.Record:
    folder = checkpoints.prepare(out, {**plan.record(), "corpus": text.name, "sha256": text.sha256})
    encoder = _tokenizer(folder, plan, text)
    kept = held_out.chunks(encoder, text, plan.size.context)
    ids = _training_chunks(plan, text, encoder)
    set_seed(plan.seed)
    model = Scaled(build(plan.card, plan.size), plan.recipe.embedding_scale, plan.recipe.logit_scale)
    observe = Observe(kept, plan.recipe.batch_size * plan.size.context)
    log = _all_steps(plan, model, Chunks(ids), folder, observe)
    record = finished.record(plan, model, encoder, text, ids, log)
    finished.write(out, model, encoder, record)
    return record


def _tokenizer(folder: Path, plan: Plan, text: Corpus) -> Tokenizer:
    """The interrupted training's tokenizer, or a new one."""
    if not (folder / tokenizer.FILE).is_file():
        trained = tokenizer.train(text.training, plan.size.vocabulary)
        records.write_text(folder / tokenizer.FILE, trained.to_str())
    return tokenizer.load(folder)


def _training_chunks(plan: Plan, text: Corpus, encoder: Tokenizer) -> Tensor:
    """The training split as chunks (N, T), at least one batch of them."""
    ids = tokenizer.chunks(tokenizer.encode(encoder, text.training), plan.size.context)
    needed = plan.recipe.batch_size
    if len(ids) < needed:
        raise UsageError(f"the corpus {text.name} has {len(ids)} chunks of text, fewer than one batch of {needed}.")
    if plan.tokens > ids.numel():
        passes = plan.tokens / ids.numel()
        warn(f"{plan.tokens:,} tokens are {passes:.1f} passes over the {ids.numel():,} of the corpus {text.name}.")
    return ids


def _all_steps(plan: Plan, model: Scaled, data: Chunks, folder: Path, observe: Observe) -> Log:
    """The whole training's log: of what remains to be done, or of a last checkpoint that wants no further step."""
    checkpoint = checkpoints.last(folder)
    if checkpoint is None or (known := checkpoints.state(checkpoint))["global_step"] < plan.steps:
        return _run(plan, model, data, folder, checkpoint, observe)
    model.load_state_dict(load_file(Path(checkpoint) / WEIGHTS))
    return list(known["log_history"])


def _run(plan: Plan, model: Scaled, data: Chunks, folder: Path, checkpoint: str | None, observe: Observe) -> Log:
    """All steps that remain and the whole training's log, or an `InterruptionError` that says how to go on."""
    report = Report(plan.title, plan.recipe.batch_size * plan.size.context)
    with quiet():
        trainer = Trainer(
            model=model,
            args=_arguments(plan, folder),
            train_dataset=data,
            callbacks=[Stop(), report, observe],
            optimizers=(_optimizer(plan, model), None),
        )
        trainer.remove_callback(PrinterCallback)
        with report.bar:
            trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.state.global_step < plan.steps:
        done = f"stopped after {trainer.state.global_step} of {plan.steps} steps"
        raise InterruptionError(f"{done}; repeat the command to continue in {folder.parent}.")
    return list(trainer.state.log_history)


def _arguments(plan: Plan, folder: Path) -> Any:
    recipe, at_once = plan.recipe, math.gcd(plan.recipe.batch_size, SEQUENCES_AT_ONCE)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=recipe.batch_size // at_once,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=round(recipe.warmup_ratio * plan.steps),
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.bf16,
        seed=plan.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        save_steps=max(1, plan.steps // CHECKPOINTS),
        save_total_limit=1,
        logging_steps=-(-plan.steps // CURVE_POINTS),
        logging_nan_inf_filter=False,  # a training that diverges must be seen to
        disable_tqdm=True,
        report_to="none",
    )


def _optimizer(plan: Plan, model: Scaled) -> torch.optim.Optimizer:
    """AdamW that decays matrices and tables only: biases, gains and the two scales are free."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": plan.recipe.weight_decay},
        {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.recipe.learning_rate, fused=True)
