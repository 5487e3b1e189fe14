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
from pi_sim.training.entropy_penalty import trainable
from pi_sim.training.observed import Observe
from pi_sim.training.plan import Plan
from pi_sim.training.steps import InterruptionError, all_steps


def train(plan: Plan, out: Path) -> TrainingRecord | None:
    """Train, or continue the interrupted training in `out`; the finished record, from the first process only."""
    try:
        return _train(plan, out.resolve())
    except KeyboardInterrupt:
        raise InterruptionError(f"stopped; repeat the command to continue in {out}.") from None


def _train(plan: Plan, out: Path) -> TrainingRecord | None:
    _check(plan, out)
    text = corpus.load(plan.corpus)
    manifest.tell_differences(text)
    with checkpoints.writing(out), checkpoints.refusable(out):
        return _train_on(text, plan, out)


def _check(plan: Plan, out: Path) -> None:
    """Refuse what would make the record untrue, or cannot be done."""
    plan.build_meta_model()
    if plan.recipe.fp16 and plan.recipe.bf16:
        raise UsageError("fp16 and bf16 exclude each other; switch one off, such as with --set bf16=false.")
    if plan.recipe.fp16 and not torch.cuda.is_available():
        raise UsageError("fp16 needs a CUDA GPU; use --set fp16=false --set bf16=true, which every processor can do.")
    processes.check()
    processes.share(plan.recipe.batch_size)
    if out.is_relative_to(plan.corpus):
        raise UsageError(f"{out} lies in the corpus {plan.corpus} and would change it; give another --out.")


def _train_on(text: Corpus, plan: Plan, out: Path) -> TrainingRecord | None:
    with processes.joined():
        folder, encoder = _begin(text, plan, out)
        kept = held_out.chunks(encoder, text, plan.size.context)
        ids = _training_chunks(plan, text, encoder)
        set_seed(plan.seed)
        model = trainable(plan.build_model(), plan.recipe)
        log = all_steps(plan, model, ids, folder, Observe(kept, plan.tokens_per_step))
    if not processes.is_first():
        return None
    record = finished.record(plan, model, encoder, text, ids, log)
    finished.write(out, model, encoder, record)
    return record


def _begin(text: Corpus, plan: Plan, out: Path) -> tuple[Path, Tokenizer]:
    """The folder of the checkpoints, and the interrupted training's tokenizer or the plan's."""
    known = {**plan.to_record(), "corpus": text.name, "sha256": text.sha256, "processes": processes.count()}
    with processes.first_goes_first():
        folder = checkpoints.prepare(out, known)
        if not (folder / tokenizer.FILE).is_file():
            files.write_text(folder / tokenizer.FILE, plan.make_tokenizer(text).to_str())
        return folder, tokenizer.load(folder)


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
