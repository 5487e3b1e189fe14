"""Conversion: surgery on a trained checkpoint, its held-out quality before and right after; fine-tuning comes next.

The way of "ReLU Strikes Back" (arXiv 2310.04564): stage 1 puts ReLU for the activation, stage 2 one after each norm;
and of those who replace a pre-trained model's norms, by DyT or by nothing.
"""

import math
import os
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pi_sim import files, records, specs
from pi_sim.errors import UsageError
from pi_sim.records import ConversionRecord, JsonObject, TrainingRecord
from pi_sim.training import checkpoints, corpus, evaluation, tokenizer
from pi_sim.training.checkpoints import RECORD_FILE, report_write_errors
from pi_sim.training.corpus import Corpus
from pi_sim.zoo import build, norms, surgery
from pi_sim.zoo.source import CardModel, ModelSource

COPIED_KEYS = {"card", "size", "dimensions"}
"""What a checkpoint's record tells that stays true of the converted model."""
ALPHA_SAMPLE_CHUNKS = 8
"""Held-out chunks, or fewer where they are long, whose activations decide where DyT starts."""


def parse_switches(switches: dict[str, Any], settings: tuple[str, ...]) -> surgery.Plan:
    """The switches that were set, and those given as KEY=VALUE."""
    chosen = {switch: value for switch, value in switches.items() if value not in (None, ())}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or key not in specs.Surgery.model_fields:
            raise UsageError(f"--set {text} is not KEY=VALUE with a key among {', '.join(specs.Surgery.model_fields)}.")
        chosen[key] = value
    return specs.validate_table(specs.Surgery, chosen, "this conversion").model_dump(mode="json", exclude_unset=True)


def summarize_conversion(record: ConversionRecord) -> str:
    """The result in a few words."""
    before, after = (math.inf if side.perplexity is None else side.perplexity for side in (record.before, record.after))
    return f"held-out perplexity {before:,.2f} before, {after:,.2f} right after; fine-tune it with pi-sim train --from"


def conversion_title(source: ModelSource, plan: surgery.Plan) -> str:
    """Return a folder's name: the source and the switches."""
    name = f"{source.card.name}-{source.label}" if isinstance(source, CardModel) else Path(source.name).name
    return "-".join((name, *(f"{switch}={value}" for switch, value in sorted(plan.items()))))


def convert(
    source: ModelSource, plan: surgery.Plan, out: Path, text: str | None, length: int | None = None
) -> ConversionRecord:
    """Convert a card's shipped weights or a folder's; what `out` holds is a checkpoint for `pi-sim train --from`.

    DyT and Derf start from the slope of the norm in their place, unless the plan names alphas. Quality is measured on
    sequences of `length` tokens, the model's context by default.
    Returns the record, of kind "conversion". Raises `UsageError` for surgery that this model does not allow.
    """
    if not plan:
        raise UsageError("there is nothing to convert; name a switch, such as --activation relu.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already and is not empty; give another --out.")
    shapes = source.meta()
    length = evaluation.resolve_length(shapes.config, length, "--seq-len")
    surgery.apply_surgery(shapes, plan)  # refuses what is impossible before long work
    model, folder = source.load(), source.folder
    encoder, words = (
        tokenizer.load_tokenizer(folder),
        corpus.load_corpus(text) if text else evaluation.load_recorded_corpus(folder),
    )
    found = _convert_and_measure(model, plan, encoder, words, length)
    record = ConversionRecord.model_validate(records.json_safe({**_origin_entries(folder, plan, model), **found}))
    _write_checkpoint(model, encoder, record, out)
    return record


def _convert_and_measure(
    model: PreTrainedModel, switches: surgery.Plan, encoder: Tokenizer, text: Corpus, length: int
) -> JsonObject:
    """Carry out the surgery; the quality on both sides of it."""
    before = evaluation.measure_quality(model, encoder, text, length)
    few = min(ALPHA_SAMPLE_CHUNKS, evaluation.batch_limit(length))
    spreads = norms.input_stds(model, evaluation.held_out_chunks(encoder, text, length)[:few])
    kept = set(model.modules())
    surgery.apply_surgery(model, switches)
    if not {"alpha_attention", "alpha_other"} & switches.keys():
        norms.init_alphas(model, spreads, kept)
    after = evaluation.measure_quality(model, encoder, text, length)
    known = {"name": text.name, "sha256": text.sha256}
    return {"corpus": known, "seq_len": length, "before": before, "after": after}


def _origin_entries(source: Path, switches: surgery.Plan, model: PreTrainedModel) -> JsonObject:
    """Where the model came from, and what it is now."""
    known = records.load(source / RECORD_FILE) if (source / RECORD_FILE).is_file() else None
    if not isinstance(known, (TrainingRecord, ConversionRecord)):
        return {"source": source.name, "surgery": switches}
    copied = known.model_dump(include=COPIED_KEYS)
    if known.architecture:
        copied["architecture"] = _converted_design(known.architecture, switches, specs.Surgery(**model.config.pi_sim))
    return {"source": source.name, "surgery": switches, **copied}


def _converted_design(known: specs.Architecture, switches: surgery.Plan, now: specs.Surgery) -> JsonObject:
    """Return a recorded design with the switches that the surgery decided, as they are now."""
    return {**known.model_dump(mode="json"), **now.model_dump(mode="json", include=surgery.affected_switches(switches))}


def _write_checkpoint(model: PreTrainedModel, encoder: Tokenizer, record: ConversionRecord, out: Path) -> None:
    """The checkpoint, moved to its place once it is whole and loads."""
    staging = out.resolve().with_name(f".{out.resolve().name}.{os.getpid()}")
    with report_write_errors(out):
        try:
            staging.mkdir(parents=True)
            build.save_checkpoint(model.to(checkpoints.checkpoint_dtype(model)), staging)
            files.write_text(staging / tokenizer.TOKENIZER_FILE, encoder.to_str())
            records.save(staging / RECORD_FILE, record)
            build.load_checkpoint(staging)
            staging.replace(out.resolve())
        finally:
            shutil.rmtree(staging, ignore_errors=True)
