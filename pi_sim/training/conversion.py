"""Conversion: surgery on a trained checkpoint, with its held-out quality before and after; fine-tuning comes next.

The method of "ReLU Strikes Back" (arXiv 2310.04564), whose stage 1 replaces the activation by ReLU and whose stage 2
adds a ReLU after each norm, and of papers that replace a pre-trained model's norms by DyT or by nothing.
"""

import math
import os
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.records import ConversionRecord, JsonObject
from pi_sim.training import evaluation
from pi_sim.training.checkpoints import report_write_errors, write_checkpoint
from pi_sim.training.corpus import Corpus, load_corpus, load_tokenizer
from pi_sim.zoo import build, surgery
from pi_sim.zoo.source import CardModel, ModelSource
from pi_sim.zoo.tasks import find_task

COPIED_KEYS = {"card", "size", "dimensions"}
"""Parts of a checkpoint's record that stay true of the converted model."""
ALPHA_SAMPLE_CHUNKS = 8
"""Held-out chunks whose activations determine the initial alphas of DyT; fewer for long chunks."""


def parse_switches(switches: dict[str, Any], settings: tuple[str, ...]) -> surgery.Plan:
    """Return the surgery of the switches that were set and of settings KEY=VALUE, validated."""
    chosen = {switch: value for switch, value in switches.items() if value not in (None, ())}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or key not in specs.Surgery.model_fields:
            raise UsageError(f"--set {text} is not KEY=VALUE with a key among {', '.join(specs.Surgery.model_fields)}.")
        chosen[key] = value
    return specs.validate_table(specs.Surgery, chosen, "this conversion").model_dump(mode="json", exclude_unset=True)


def summarize_conversion(record: ConversionRecord) -> str:
    """Return the result in a few words."""
    before, after = (math.inf if side.perplexity is None else side.perplexity for side in (record.before, record.after))
    return f"held-out perplexity {before:,.2f} before, {after:,.2f} after; fine-tune it with pi-sim train --from"


def conversion_title(source: ModelSource, plan: surgery.Plan) -> str:
    """Return the default name of the output folder: the source and its surgery."""
    name = f"{source.card.name}-{source.label}" if isinstance(source, CardModel) else Path(source.name).name
    return "-".join((name, *(f"{switch}={value}" for switch, value in sorted(plan.items()))))


def convert(
    source: ModelSource, plan: surgery.Plan, out: Path, corpus_name: str | None, length: int | None = None
) -> ConversionRecord:
    """Convert a card's shipped weights or a checkpoint folder; `out` becomes a checkpoint for `pi-sim train --from`.

    DyT and Derf start with the slope of the norm that they replace, unless the plan sets alphas. Quality is measured on
    sequences of `length` tokens, by default the model's context, of the named corpus or of the recorded one.

    Returns the record, of kind "conversion". Raises `UsageError` for surgery that this model does not allow.
    """
    if not plan:
        raise UsageError("there is nothing to convert; name a switch, such as --activation relu.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already and is not empty; give another --out.")
    meta_model = source.meta()
    if find_task(meta_model) != "causal":
        raise UsageError(f"{type(meta_model).__name__} predicts no next token; convert takes causal language models.")
    length = evaluation.resolve_length(meta_model.config, length, "--seq-len")
    surgery.apply_surgery(meta_model, plan)  # refuses impossible surgery before the long work
    model, folder = source.load(), source.folder
    tokenizer = load_tokenizer(folder)
    corpus = load_corpus(corpus_name) if corpus_name else evaluation.load_recorded_corpus(folder)
    quality = _convert_and_measure(model, plan, tokenizer, corpus, length)
    record = ConversionRecord.model_validate(records.json_safe({**_origin_entries(folder, plan, model), **quality}))
    _write_checkpoint(model, tokenizer, record, out)
    return record


def _convert_and_measure(
    model: PreTrainedModel, plan: surgery.Plan, tokenizer: Tokenizer, corpus: Corpus, length: int
) -> JsonObject:
    """Carry out the surgery and return the quality before and after it."""
    before = evaluation.measure_quality(model, tokenizer, corpus, length)
    sample = min(ALPHA_SAMPLE_CHUNKS, evaluation.batch_limit(length))
    input_stds = surgery.input_stds(model, evaluation.held_out_chunks(tokenizer, corpus, length)[:sample])
    old_modules = set(model.modules())
    surgery.apply_surgery(model, plan)
    if not {"alpha_attention", "alpha_other"} & plan.keys():
        surgery.init_alphas(model, input_stds, old_modules)
    after = evaluation.measure_quality(model, tokenizer, corpus, length)
    corpus_id = {"name": corpus.name, "sha256": corpus.sha256}
    return {"corpus": corpus_id, "seq_len": length, "before": before, "after": after}


def _origin_entries(folder: Path, plan: surgery.Plan, model: PreTrainedModel) -> JsonObject:
    """Return the source's name and, if its record has them, card, size and dimensions, and the converted design."""
    record = evaluation.load_model_record(folder)
    copied = record.model_dump(include=COPIED_KEYS) if record else {}
    if record and record.architecture:
        switches = specs.Surgery(**model.config.pi_sim).model_dump(mode="json", include=surgery.affected_switches(plan))
        copied["architecture"] = {**record.architecture.model_dump(mode="json"), **switches}
    return {"source": folder.name, "surgery": plan, **copied}


def _write_checkpoint(model: PreTrainedModel, tokenizer: Tokenizer, record: ConversionRecord, out: Path) -> None:
    """Write the checkpoint to a staging folder, test that it loads, and move it to `out`."""
    staging = out.resolve().with_name(f".{out.resolve().name}.{os.getpid()}")
    with report_write_errors(out):
        try:
            staging.mkdir(parents=True)
            write_checkpoint(staging, model, tokenizer, record)
            build.load_checkpoint(staging)
            staging.replace(out.resolve())
        finally:
            shutil.rmtree(staging, ignore_errors=True)
