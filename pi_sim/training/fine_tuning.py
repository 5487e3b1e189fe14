"""Fine-tuning: training goes on from a checkpoint that pi-sim trained or converted, or that is anybody's.

The weights, the dimensions and the tokenizer are the checkpoint's, of which the context may be shortened; the recipe is
that of a size, or one of a card's. Its two scales are folded already and stay so.
"""

# MERGED: Which of the two trainings a command asks for: from scratch, or on from a checkpoint.

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.records import ConversionRecord, TrainingRecord
from pi_sim.training import corpus, evaluation, plan, tokenizer
from pi_sim.training.checkpoints import RECORD_FILE
from pi_sim.training.corpus import Corpus
from pi_sim.training.plan import Plan, card_overrides, parse_settings, recipe_with, setting_labels
from pi_sim.zoo import build
from pi_sim.zoo.scales import check_plain_logits

INHERITED_SETTINGS = ("init_std", "embedding_scale", "logit_scale", "embedding_dropout")  # with the checkpoint
SETTABLE_KEYS = (*(key for key in specs.Recipe.model_fields if key not in INHERITED_SETTINGS), "context")
CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "width": "hidden_size",
    "context": "max_position_embeddings",
    "vocabulary": "vocab_size",
}
"""What transformers calls them, in every family."""
HISTORY_KEYS = {"kind", "argv", "surgery", "before", "after", "held_out", "source", "origin"}
"""What the checkpoint's record tells of what became of the model before."""


@dataclass(frozen=True)
class SourceCheckpoint:
    """A checkpoint's folder."""

    folder: Path

    @cached_property
    def config(self) -> Any:
        return build.read_config(self.folder)

    @cached_property
    def record(self) -> TrainingRecord | ConversionRecord | None:
        """The record beside it; None beside a checkpoint from elsewhere."""
        path = self.folder / RECORD_FILE
        record = records.load(path) if path.is_file() else None
        return record if isinstance(record, (TrainingRecord, ConversionRecord)) else None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def dimensions(self) -> dict[str, Any]:
        return {ours: getattr(self.config, theirs, None) for ours, theirs in CONFIG_KEYS.items()}

    @property
    def history(self) -> dict[str, Any]:
        return {"model": self.name, **(self.record.model_dump(include=HISTORY_KEYS) if self.record else {})}


@dataclass(frozen=True)
class FineTuning(Plan):
    """A checkpoint's model, with its tokenizer."""

    source: SourceCheckpoint

    @property
    def name(self) -> str:
        return f"{self.source.name}-finetuned"

    def build_model(self) -> PreTrainedModel:
        model = build.load_checkpoint(self.source.folder)
        check_plain_logits(model)
        return model

    def build_meta_model(self) -> PreTrainedModel:
        return build.build_config_model(self.source.folder.resolve() / "config.json")

    def make_tokenizer(self, text: Corpus) -> Tokenizer:
        known, most = tokenizer.load_tokenizer(self.source.folder), self.size.vocabulary
        if known.get_vocab_size() > most:
            raise UsageError(
                f"the tokenizer in {self.source.folder} has {known.get_vocab_size():,} tokens, and its model knows "
                f"{most:,}; put the tokenizer that the model was trained with there."
            )
        return known

    def to_record(self) -> dict[str, Any]:
        known = self.source.record
        card = known.card if known and known.card else self.source.name
        design = known.architecture.model_dump(mode="json") if known and known.architecture else None
        return {"card": card, "architecture": design, **super().to_record(), "origin": self.source.history}


def plan_fine_tuning(
    folder: Path,
    size: str | None,
    corpus_name: str | None,
    seed: int,
    tokens: int | None,
    settings: tuple[str, ...],
    card: str | None = None,
    recipe: str | None = None,
) -> FineTuning:
    """The plan of `pi-sim train --from`: what is not named is as the checkpoint's record tells."""
    source, chosen = SourceCheckpoint(folder), parse_settings(settings, tokens, SETTABLE_KEYS)
    text = corpus_name or (source.record.corpus.name if source.record else None)
    if not text:
        raise UsageError(f"{folder} does not tell what it was trained on; name a corpus, such as --corpus packages.")
    known = specs.load_size(size or _recorded_size(source))
    changes = card_overrides(_recipe_card(source, card), known, recipe) if recipe else {}
    changes = {
        **changes,
        **_inherited_settings(source),
        **{key: value for key, value in chosen.items() if key != "context"},
    }
    return FineTuning(
        source=source,
        size=_size_with_recipe(source, known, changes, chosen.get("context")),
        corpus=corpus.absolute_name(text),
        seed=seed,
        overrides=(*([f"recipe={recipe}"] if recipe else []), *setting_labels(chosen)),
    )


def _size_with_recipe(
    source: SourceCheckpoint, size: specs.Size, changes: dict[str, Any], context: str | None
) -> specs.Size:
    """The checkpoint's dimensions, with a context that is chosen or its own, and the size's recipe with changes."""
    whole = {**source.dimensions, **({"context": context} if context else {})}
    for name in (name for name, value in whole.items() if value is None):
        remedy = "; choose one by --set context=" if name == "context" else ", so that it cannot be trained"
        raise UsageError(f"{source.folder}/config.json does not tell its {name}{remedy}.")
    recipe = recipe_with(size, changes).model_dump()
    whole |= {"name": size.name, "title": size.title, "training": recipe}
    found = specs.validate_table(specs.Size, whole, f"{source.folder} as it is to be trained")
    evaluation.resolve_length(source.config, found.context, "--set context=")
    return found


def _inherited_settings(source: SourceCheckpoint) -> dict[str, Any]:
    """What of a recipe came with the checkpoint: scales are folded, and a dropout is in its config."""
    dropout = getattr(source.config, "embd_pdrop", 0.0)
    return {"embedding_scale": None, "logit_scale": None, "embedding_dropout": dropout}


def _recipe_card(source: SourceCheckpoint, named: str | None) -> specs.ModelCard:
    """The card whose recipe is meant: the one that is named, or that of the checkpoint's record."""
    known = named or str(source.record.card if source.record else None)
    if not named and known not in specs.list_names("models"):
        raise UsageError(f"{source.folder} tells no card that is known here; name one, such as --model relufied1.")
    return specs.load_model_card(known)


def _recorded_size(source: SourceCheckpoint) -> str:
    """The size that the checkpoint's record names, whose recipe is then meant."""
    name = source.record.size if source.record else None
    if name not in specs.list_names("models/sizes"):
        told = f"names the size {name}, which is not known here" if name else "does not tell its size"
        raise UsageError(f"{source.folder} {told}; name one whose recipe to use, such as --size tiny.")
    return str(name)


def plan_from_options(
    model: str | None,
    source: Path | None,
    size: str | None,
    recipe: str | None,
    corpus: str | None,
    seed: int,
    tokens: int | None,
    settings: tuple[str, ...],
) -> plan.Plan:
    """The plan of `pi-sim train`; what is None was not said."""
    if source is not None and (model is None or recipe is not None):
        return plan_fine_tuning(source, size, corpus, seed, tokens, settings, model, recipe)
    if source is not None or model is None:
        raise UsageError(
            "give --model, a card to train from scratch, or --from, a checkpoint to go on with: one of them; both only "
            "with --recipe, for one of that card's."
        )
    return plan.plan_from_scratch(model, size or "tiny", corpus or "packages", seed, tokens, settings, recipe)
