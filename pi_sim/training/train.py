"""Training with transformers' Trainer, from a plan to a checkpoint in Hugging Face's format."""

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import StackDataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from pi_sim import files
from pi_sim.errors import MissingDependencyError, RunError, UsageError, warn
from pi_sim.records import TrainingRecord
from pi_sim.training import callbacks, checkpoints, distributed, evaluation
from pi_sim.training.corpus import (
    TOKENIZER_FILE,
    Corpus,
    encode_documents,
    load_corpus,
    load_tokenizer,
    split_chunks,
    warn_if_corpus_changed,
)
from pi_sim.training.entropy_penalty import make_trainable
from pi_sim.training.evaluation import batch_limit
from pi_sim.training.plan import Plan
from pi_sim.zoo.build import WEIGHTS_FILE, quiet_transformers
from pi_sim.zoo.scales import ScaledModel

ADAM_BETA1 = 0.9
CURVE_POINTS = 200
"""Points of a loss curve, at most."""
CHECKPOINT_COUNT = 10
"""Checkpoints of an uninterrupted training."""
POLYNOMIAL_DECAY = {"power": 2.0, "lr_end": 0.0}
"""Decay by (1 - share of the steps) ** 2; transformers' default power of 1 is the linear schedule."""


class InterruptionError(RunError):
    """Training stopped by Ctrl-C, which can be continued."""

    exit_status = 128 + signal.SIGINT


def train(plan: Plan, out: Path) -> TrainingRecord | None:
    """Train, or continue the interrupted training in `out`, and write the finished checkpoint there.

    Returns the record in rank zero, None in other processes. Raises `InterruptionError` after Ctrl-C, `UsageError` for
    a plan that cannot be trained here and `RunError` where `out` cannot be written.
    """
    try:
        absolute = out.resolve()
        _check_plan(plan, absolute)
        corpus = load_corpus(plan.corpus)
        warn_if_corpus_changed(corpus)
        with checkpoints.report_write_errors(absolute), checkpoints.remove_if_refused(absolute):
            return _train_on_corpus(corpus, plan, absolute)
    except KeyboardInterrupt:
        raise InterruptionError(f"stopped; repeat the command to continue in {out}.") from None


def _check_plan(plan: Plan, out: Path) -> None:
    """Refuse a plan that this machine cannot train, or whose output would change its corpus."""
    if importlib.util.find_spec("accelerate") is None:
        raise MissingDependencyError("training needs accelerate; install it with `pip install 'pi-sim[train]'`.")
    plan.build_meta_model()
    if plan.recipe.fp16 and plan.recipe.bf16:
        raise UsageError("fp16 and bf16 exclude each other; switch one off, such as with --set bf16=false.")
    if plan.recipe.fp16 and not torch.cuda.is_available():
        raise UsageError("fp16 needs a CUDA GPU; use --set fp16=false --set bf16=true, which every CPU supports.")
    distributed.check_gpus()
    distributed.local_batch_size(plan.recipe.batch_size)
    if out.is_relative_to(plan.corpus):
        raise UsageError(f"{out} lies in the corpus {plan.corpus} and would change it; give another --out.")


def _train_on_corpus(corpus: Corpus, plan: Plan, out: Path) -> TrainingRecord | None:
    with distributed.process_group():
        folder, tokenizer = _prepare_folder_and_tokenizer(corpus, plan, out)
        held_out = evaluation.held_out_chunks(tokenizer, corpus, plan.size.context)
        ids = _training_chunks(plan, corpus, tokenizer)
        set_seed(plan.seed)
        model = make_trainable(plan.build_model(), plan.recipe)
        log = _train_all_steps(plan, model, ids, folder, callbacks.ObservationCallback(held_out, plan.tokens_per_step))
    if not distributed.is_rank_zero():
        return None
    record = checkpoints.training_record(plan, model, tokenizer, corpus, ids, log)
    checkpoints.write_result(out, model, tokenizer, record)
    return record


def _prepare_folder_and_tokenizer(corpus: Corpus, plan: Plan, out: Path) -> tuple[Path, Tokenizer]:
    """Return the folder for checkpoints and the tokenizer, either the interrupted training's or new ones."""
    table = {**plan.to_record(), "corpus": corpus.name, "sha256": corpus.sha256, "processes": distributed.world_size()}
    with distributed.rank_zero_first():
        folder = checkpoints.prepare_folder(out, table)
        if not (folder / TOKENIZER_FILE).is_file():
            files.write_text(folder / TOKENIZER_FILE, plan.make_tokenizer(corpus).to_str())
        return folder, load_tokenizer(folder)


def _training_chunks(plan: Plan, corpus: Corpus, tokenizer: Tokenizer) -> Tensor:
    """Return the training split as chunks (N, T), at least one batch; warn of more than one pass over it."""
    ids = split_chunks(encode_documents(tokenizer, corpus.training), plan.size.context)
    batch = plan.recipe.batch_size
    if len(ids) < batch:
        raise UsageError(f"the corpus {corpus.name} has {len(ids)} chunks of text, fewer than one batch of {batch}.")
    if plan.tokens > ids.numel():
        passes = plan.tokens / ids.numel()
        warn(f"{plan.tokens:,} tokens are {passes:.1f} passes over the {ids.numel():,} of the corpus {corpus.name}.")
    return ids


def _train_all_steps(
    plan: Plan, model: ScaledModel, ids: Tensor, folder: Path, observer: TrainerCallback
) -> callbacks.TrainerLog:
    """Train on chunks (N, T), from the last checkpoint in `folder` if there is one, and return the complete log.

    Raises `InterruptionError` where Ctrl-C stopped the training before its last step.
    """
    checkpoint = checkpoints.last_checkpoint(folder)
    if checkpoint and _is_finished(plan, **(saved_state := checkpoints.load_trainer_state(checkpoint))):
        model.load_state_dict(load_file(Path(checkpoint) / WEIGHTS_FILE))
        return list(saved_state["log_history"])
    state = _run_trainer(plan, model, ids, folder, checkpoint, observer)
    if not _is_finished(plan, **vars(state)):
        raise InterruptionError(
            f"stopped after {state.global_step} of {plan.steps} steps; "
            f"repeat the command to continue in {folder.parent}."
        )
    return list(state.log_history)


def _is_finished(plan: Plan, *, global_step: int, log_history: callbacks.TrainerLog, **_: Any) -> bool:
    """Return True if the Trainer's state, given as keywords, is that after the last step or of a divergence."""
    return global_step >= plan.steps or callbacks.divergence_step(log_history) is not None


def _run_trainer(
    plan: Plan, model: ScaledModel, ids: Tensor, folder: Path, checkpoint: str | None, observer: TrainerCallback
) -> Any:
    """Return the Trainer's state after the remaining steps, or after those before an interruption."""
    progress = callbacks.ProgressBarCallback(plan.title, plan.tokens_per_step)
    with quiet_transformers():
        trainer = Trainer(
            model=model,
            args=_training_arguments(plan, folder),
            train_dataset=StackDataset(input_ids=_full_batches(plan, ids)),  # type: ignore[arg-type]  # has len and []
            callbacks=[callbacks.InterruptCallback(), progress, observer, callbacks.DivergenceCallback()],
            optimizers=(_make_optimizer(plan, model), None),
        )
        trainer.remove_callback(PrinterCallback)
        with progress.bar:
            trainer.train(resume_from_checkpoint=checkpoint)
    return trainer.state


def _full_batches(plan: Plan, ids: Tensor) -> Tensor:
    """Return the chunks, without an incomplete last batch where batches are accumulated: a pass would end short."""
    batch = plan.recipe.batch_size
    return ids if batch <= batch_limit(plan.size.context) else ids[: len(ids) // batch * batch]


def _training_arguments(plan: Plan, folder: Path) -> Any:
    recipe, batch = plan.recipe, distributed.local_batch_size(plan.recipe.batch_size)
    parts = _accumulation_steps(batch, plan.size.context)
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # the recipe decides, not the launcher
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=batch // parts,
        gradient_accumulation_steps=parts,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        lr_scheduler_kwargs=POLYNOMIAL_DECAY if recipe.schedule == "polynomial" else None,
        warmup_steps=round(recipe.warmup_ratio * plan.steps),
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.bf16,
        fp16=recipe.fp16,
        seed=plan.seed,
        ddp_find_unused_parameters=False,  # no design has unused parameters
        use_cpu=not torch.cuda.is_available(),
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        save_steps=max(1, plan.steps // CHECKPOINT_COUNT),
        save_total_limit=1,
        logging_steps=-(-plan.steps // CURVE_POINTS),
        logging_nan_inf_filter=False,  # log the NaN of a training that diverges
        disable_tqdm=True,
        report_to="none",
    )


def _accumulation_steps(batch: int, length: int) -> int:
    """Return the smallest number of equal parts of a batch that fit into memory; their gradients are accumulated."""
    return next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= batch_limit(length))


def _make_optimizer(plan: Plan, model: ScaledModel) -> torch.optim.Optimizer:
    """Return AdamW with weight decay on the model's own matrices and tables only, not on gains or added parameters."""
    matrices = {id(weight) for weight in model.model.parameters() if weight.dim() == 2}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in weights if id(weight) in matrices], "weight_decay": plan.recipe.weight_decay},
        {"params": [weight for weight in weights if id(weight) not in matrices], "weight_decay": 0.0},
    ]
    betas = ADAM_BETA1, plan.recipe.adam_beta2
    return torch.optim.AdamW(groups, lr=plan.recipe.learning_rate, betas=betas, fused=True)
