"""Training with transformers' Trainer, from a plan to a checkpoint in Hugging Face's format."""

# MERGED: The steps of a training with transformers' Trainer, begun or continued.

import os
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from pi_sim import files
from pi_sim.errors import RunError, UsageError, warn
from pi_sim.records import TrainingRecord
from pi_sim.training import checkpoints, corpus, distributed, evaluation, tokenizer
from pi_sim.training.callbacks import (
    DivergenceCallback,
    InterruptCallback,
    ObservationCallback,
    ProgressBarCallback,
    TrainerLog,
    divergence_step,
)
from pi_sim.training.corpus import Corpus
from pi_sim.training.entropy_penalty import make_trainable
from pi_sim.training.evaluation import batch_limit
from pi_sim.training.plan import Plan
from pi_sim.zoo.build import WEIGHTS_FILE, quiet_transformers
from pi_sim.zoo.scales import ScaledModel


def train(plan: Plan, out: Path) -> TrainingRecord | None:
    """Train, or continue the interrupted training in `out`; the finished record, from the first process only."""
    try:
        return _load_corpus_and_train(plan, out.resolve())
    except KeyboardInterrupt:
        raise InterruptionError(f"stopped; repeat the command to continue in {out}.") from None


def _load_corpus_and_train(plan: Plan, out: Path) -> TrainingRecord | None:
    _check_plan(plan, out)
    text = corpus.load_corpus(plan.corpus)
    corpus.warn_if_corpus_changed(text)
    with checkpoints.report_write_errors(out), checkpoints.remove_if_refused(out):
        return _train_on_corpus(text, plan, out)


def _check_plan(plan: Plan, out: Path) -> None:
    """Refuse what would make the record untrue, or cannot be done."""
    plan.build_meta_model()
    if plan.recipe.fp16 and plan.recipe.bf16:
        raise UsageError("fp16 and bf16 exclude each other; switch one off, such as with --set bf16=false.")
    if plan.recipe.fp16 and not torch.cuda.is_available():
        raise UsageError("fp16 needs a CUDA GPU; use --set fp16=false --set bf16=true, which every processor can do.")
    distributed.check_gpus()
    distributed.local_batch_size(plan.recipe.batch_size)
    if out.is_relative_to(plan.corpus):
        raise UsageError(f"{out} lies in the corpus {plan.corpus} and would change it; give another --out.")


def _train_on_corpus(text: Corpus, plan: Plan, out: Path) -> TrainingRecord | None:
    with distributed.process_group():
        folder, encoder = _prepare_folder_and_tokenizer(text, plan, out)
        kept = evaluation.held_out_chunks(encoder, text, plan.size.context)
        ids = _training_chunks(plan, text, encoder)
        set_seed(plan.seed)
        model = make_trainable(plan.build_model(), plan.recipe)
        log = run_steps(plan, model, ids, folder, ObservationCallback(kept, plan.tokens_per_step))
    if not distributed.is_rank_zero():
        return None
    record = checkpoints.training_record(plan, model, encoder, text, ids, log)
    checkpoints.write_result(out, model, encoder, record)
    return record


def _prepare_folder_and_tokenizer(text: Corpus, plan: Plan, out: Path) -> tuple[Path, Tokenizer]:
    """The folder of the checkpoints, and the interrupted training's tokenizer or the plan's."""
    known = {**plan.to_record(), "corpus": text.name, "sha256": text.sha256, "processes": distributed.world_size()}
    with distributed.rank_zero_first():
        folder = checkpoints.prepare_folder(out, known)
        if not (folder / tokenizer.TOKENIZER_FILE).is_file():
            files.write_text(folder / tokenizer.TOKENIZER_FILE, plan.make_tokenizer(text).to_str())
        return folder, tokenizer.load_tokenizer(folder)


def _training_chunks(plan: Plan, text: Corpus, encoder: Tokenizer) -> Tensor:
    """The training split as chunks (N, T), at least one batch of them."""
    ids = tokenizer.split_chunks(tokenizer.encode_documents(encoder, text.training), plan.size.context)
    needed = plan.recipe.batch_size
    if len(ids) < needed:
        raise UsageError(f"the corpus {text.name} has {len(ids)} chunks of text, fewer than one batch of {needed}.")
    if plan.tokens > ids.numel():
        passes = plan.tokens / ids.numel()
        warn(f"{plan.tokens:,} tokens are {passes:.1f} passes over the {ids.numel():,} of the corpus {text.name}.")
    return ids


ADAM_BETA1 = 0.9
CURVE_POINTS = 200
CHECKPOINT_COUNT = 10  # in a training that nothing interrupts
POLYNOMIAL_DECAY = {"power": 2.0, "lr_end": 0.0}
"""Its decay, (1 - share of the steps) ** 2: transformers' default power of 1 is the linear schedule."""


class InterruptionError(RunError):
    """Ctrl-C: the training can be continued."""

    exit_status = 128 + signal.SIGINT


class ChunkDataset(Dataset[dict[str, Tensor]]):
    """Token ids (N, T) as the Trainer takes them."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[index]}


def run_steps(plan: Plan, model: ScaledModel, ids: Tensor, folder: Path, observe: ObservationCallback) -> TrainerLog:
    """Train on chunks (N, T): the whole training's log, or an `InterruptionError` that says how to go on."""
    checkpoint = checkpoints.last_checkpoint(folder)
    if checkpoint and _is_finished(plan, **(known := checkpoints.load_trainer_state(checkpoint))):
        model.load_state_dict(load_file(Path(checkpoint) / WEIGHTS_FILE))
        return list(known["log_history"])
    state = _run_trainer(plan, model, ids, folder, checkpoint, observe)
    if not _is_finished(plan, **vars(state)):
        done = f"stopped after {state.global_step} of {plan.steps} steps"
        raise InterruptionError(f"{done}; repeat the command to continue in {folder.parent}.")
    return list(state.log_history)


def _is_finished(plan: Plan, *, global_step: int, log_history: TrainerLog, **_: Any) -> bool:
    """Whether no step remains to be done, as the Trainer's state tells."""
    return global_step >= plan.steps or divergence_step(log_history) is not None


def _run_trainer(
    plan: Plan, model: ScaledModel, ids: Tensor, folder: Path, checkpoint: str | None, observe: ObservationCallback
) -> Any:
    """The Trainer's state after all steps that remain, or after those that there was time for."""
    report = ProgressBarCallback(plan.title, plan.tokens_per_step)
    with quiet_transformers():
        trainer = Trainer(
            model=model,
            args=_training_arguments(plan, folder),
            train_dataset=ChunkDataset(_whole_batches(plan, ids)),
            callbacks=[InterruptCallback(), report, observe, DivergenceCallback()],
            optimizers=(_make_optimizer(plan, model), None),
        )
        trainer.remove_callback(PrinterCallback)
        with report.bar:
            trainer.train(resume_from_checkpoint=checkpoint)
    return trainer.state


def _whole_batches(plan: Plan, ids: Tensor) -> Tensor:
    """The chunks without a last incomplete batch, where batches are accumulated: a pass would end in a smaller one."""
    batch = plan.recipe.batch_size
    return ids if batch <= batch_limit(plan.size.context) else ids[: len(ids) // batch * batch]


def _accumulation_steps(batch: int, length: int) -> int:
    """Into how many equal parts a batch is cut that is too large for the memory: they are accumulated."""
    return next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= batch_limit(length))


def _training_arguments(plan: Plan, folder: Path) -> Any:
    recipe, own = plan.recipe, distributed.local_batch_size(plan.recipe.batch_size)
    parts = _accumulation_steps(own, plan.size.context)
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # the recipe decides, not the launcher
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=own // parts,
        gradient_accumulation_steps=parts,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        lr_scheduler_kwargs=POLYNOMIAL_DECAY if recipe.schedule == "polynomial" else None,
        warmup_steps=round(recipe.warmup_ratio * plan.steps),
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.bf16,
        fp16=recipe.fp16,
        seed=plan.seed,
        ddp_find_unused_parameters=False,  # no design has any
        use_cpu=not torch.cuda.is_available(),
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        save_steps=max(1, plan.steps // CHECKPOINT_COUNT),
        save_total_limit=1,
        logging_steps=-(-plan.steps // CURVE_POINTS),
        logging_nan_inf_filter=False,  # a training that diverges must be seen to
        disable_tqdm=True,
        report_to="none",
    )


def _make_optimizer(plan: Plan, model: ScaledModel) -> torch.optim.Optimizer:
    """AdamW that decays the model's matrices and tables only; what was added to train it is free, and so are gains."""
    matrices = {id(weight) for weight in model.model.parameters() if weight.dim() == 2}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in weights if id(each) in matrices], "weight_decay": plan.recipe.weight_decay},
        {"params": [each for each in weights if id(each) not in matrices], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=plan.recipe.learning_rate, betas=(ADAM_BETA1, plan.recipe.adam_beta2), fused=True
    )
