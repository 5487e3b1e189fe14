"""Training with transformers' Trainer, from a plan to a checkpoint in Hugging Face's format."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import set_seed

from pi_sim import files
from pi_sim.errors import UsageError, warn
from pi_sim.records import TrainingRecord
from pi_sim.training import checkpoints, corpus, finished, held_out, manifest, processes, tokenizer
from pi_sim.training.corpus import Corpus
from pi_sim.training.entropy_penalty import make_trainable
from pi_sim.training.observed import ObservationCallback
from pi_sim.training.plan import Plan
from pi_sim.training.steps import InterruptionError, run_steps


def train(plan: Plan, out: Path) -> TrainingRecord | None:
    """Train, or continue the interrupted training in `out`; the finished record, from the first process only."""
    try:
        return _load_corpus_and_train(plan, out.resolve())
    except KeyboardInterrupt:
        raise InterruptionError(f"stopped; repeat the command to continue in {out}.") from None


def _load_corpus_and_train(plan: Plan, out: Path) -> TrainingRecord | None:
    _check_plan(plan, out)
    text = corpus.load_corpus(plan.corpus)
    manifest.warn_if_corpus_changed(text)
    with checkpoints.report_write_errors(out), checkpoints.remove_if_refused(out):
        return _train_on_corpus(text, plan, out)


def _check_plan(plan: Plan, out: Path) -> None:
    """Refuse what would make the record untrue, or cannot be done."""
    plan.build_meta_model()
    if plan.recipe.fp16 and plan.recipe.bf16:
        raise UsageError("fp16 and bf16 exclude each other; switch one off, such as with --set bf16=false.")
    if plan.recipe.fp16 and not torch.cuda.is_available():
        raise UsageError("fp16 needs a CUDA GPU; use --set fp16=false --set bf16=true, which every processor can do.")
    processes.check_gpus()
    processes.local_batch_size(plan.recipe.batch_size)
    if out.is_relative_to(plan.corpus):
        raise UsageError(f"{out} lies in the corpus {plan.corpus} and would change it; give another --out.")


def _train_on_corpus(text: Corpus, plan: Plan, out: Path) -> TrainingRecord | None:
    with processes.process_group():
        folder, encoder = _prepare_folder_and_tokenizer(text, plan, out)
        kept = held_out.held_out_chunks(encoder, text, plan.size.context)
        ids = _training_chunks(plan, text, encoder)
        set_seed(plan.seed)
        model = make_trainable(plan.build_model(), plan.recipe)
        log = run_steps(plan, model, ids, folder, ObservationCallback(kept, plan.tokens_per_step))
    if not processes.is_rank_zero():
        return None
    record = finished.training_record(plan, model, encoder, text, ids, log)
    finished.write_result(out, model, encoder, record)
    return record


def _prepare_folder_and_tokenizer(text: Corpus, plan: Plan, out: Path) -> tuple[Path, Tokenizer]:
    """The folder of the checkpoints, and the interrupted training's tokenizer or the plan's."""
    known = {**plan.to_record(), "corpus": text.name, "sha256": text.sha256, "processes": processes.world_size()}
    with processes.rank_zero_first():
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
