"""Fine-tuning plans: training continues from a checkpoint of pi-sim, converted or not, or from any other.

Weights, dimensions and tokenizer are the checkpoint's; its context may be shortened. The recipe is that of a size or
one of a card's. The two scales of a recipe are already folded into the weights and are not trained again.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.records import ConversionRecord, TrainingRecord
from pi_sim.training.corpus import Corpus, absolute_name, load_tokenizer
from pi_sim.training.evaluation import load_model_record, resolve_length
from pi_sim.training.plan import Plan, card_overrides, override_labels, parse_settings, recipe_with
from pi_sim.zoo import build
from pi_sim.zoo.scales import check_plain_logits
from pi_sim.zoo.source import CONFIG_FILE

INHERITED_SETTINGS = ("init_std", "embedding_scale", "logit_scale", "embedding_dropout")
"""Settings of a recipe that the checkpoint determines."""
SETTABLE_KEYS = (*(key for key in specs.Recipe.model_fields if key not in INHERITED_SETTINGS), "context")
CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "width": "hidden_size",
    "context": "max_position_embeddings",
    "vocabulary": "vocab_size",
}
"""Dimensions by their names in transformers' configs of every family."""
HISTORY_KEYS = {"kind", "argv", "surgery", "before", "after", "held_out", "source", "origin"}
"""Parts of the checkpoint's record that describe the model's history."""


@dataclass(frozen=True)
class SourceCheckpoint:
    """Checkpoint folder from which training continues."""

    folder: Path

    @cached_property
    def config(self) -> Any:
        return build.read_config(self.folder)

    @cached_property
    def record(self) -> TrainingRecord | ConversionRecord | None:
        return load_model_record(self.folder)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def dimensions(self) -> dict[str, Any]:
        return {name: getattr(self.config, config_key, None) for name, config_key in CONFIG_KEYS.items()}

    @property
    def history(self) -> dict[str, Any]:
        return {
            "model": self.name,
            **(self.record.model_dump(mode="json", include=HISTORY_KEYS) if self.record else {}),
        }


@dataclass(frozen=True)
class FineTuning(Plan):
    """Training of a checkpoint's model, with its tokenizer."""

    source: SourceCheckpoint

    @property
    def name(self) -> str:
        return f"{self.source.name}-finetuned"

    def build_model(self) -> PreTrainedModel:
        model = build.load_checkpoint(self.source.folder)
        check_plain_logits(model)
        return model

    def build_meta_model(self) -> PreTrainedModel:
        return build.build_config_model(self.source.folder.resolve() / CONFIG_FILE)

    def make_tokenizer(self, corpus: Corpus) -> Tokenizer:
        tokenizer, limit = load_tokenizer(self.source.folder), self.size.vocabulary
        if tokenizer.get_vocab_size() > limit:
            raise UsageError(
                f"the tokenizer in {self.source.folder} has {tokenizer.get_vocab_size():,} tokens, more than its "
                f"model's {limit:,}; replace it by the tokenizer that the model was trained with."
            )
        return tokenizer

    def to_record(self) -> dict[str, Any]:
        record = self.source.record
        card = record.card if record and record.card else self.source.name
        design = record.architecture.model_dump(mode="json") if record and record.architecture else None
        return {"card": card, "architecture": design, **super().to_record(), "origin": self.source.history}


def plan_fine_tuning(
    source: SourceCheckpoint,
    *,
    size: specs.Size | None = None,
    corpus: str | None = None,
    seed: int = 0,
    tokens: int | None = None,
    settings: tuple[str, ...] = (),
    card: specs.ModelCard | None = None,
    recipe: str | None = None,
) -> FineTuning:
    """Return the plan of `pi-sim train --from`; size, corpus and card are by default those of the source's record."""
    chosen = parse_settings(settings, tokens, SETTABLE_KEYS)
    corpus = corpus or (source.record.corpus.name if source.record else None)
    if not corpus:
        raise UsageError(
            f"{source.folder} does not state what it was trained on; name a corpus, such as --corpus packages."
        )
    size = size or _recorded_size(source)
    changes = {
        **(card_overrides(card or _recorded_card(source), size, recipe) if recipe else {}),
        **{"embedding_scale": None, "logit_scale": None},  # folded into the weights
        "embedding_dropout": getattr(source.config, "embd_pdrop", 0.0),
        **{key: value for key, value in chosen.items() if key != "context"},
    }
    return FineTuning(
        source=source,
        size=_size_with_recipe(source, size, changes, chosen.get("context")),
        corpus=absolute_name(corpus),
        seed=seed,
        overrides=override_labels(recipe, chosen),
    )


def _size_with_recipe(
    source: SourceCheckpoint, size: specs.Size, changes: dict[str, Any], context: str | None
) -> specs.Size:
    """Return the checkpoint's dimensions, the context perhaps shortened, with the size's recipe after changes."""
    table = {**source.dimensions, **({"context": context} if context else {})}
    for name in (name for name, value in table.items() if value is None):
        remedy = "; choose one with --set context=" if name == "context" else ", so it cannot be trained"
        raise UsageError(f"{source.folder}/config.json does not state its {name}{remedy}.")
    table |= {"name": size.name, "title": size.title, "training": recipe_with(size, changes).model_dump()}
    result = specs.validate_table(specs.Size, table, f"the fine-tuning of {source.folder}")
    resolve_length(source.config, result.context, "--set context=")
    return result


def _recorded_card(source: SourceCheckpoint) -> specs.ModelCard:
    """Return the card that the checkpoint's record names; raise `UsageError` where no such card ships."""
    name = str(source.record.card if source.record else None)
    if name not in specs.list_names("models"):
        raise UsageError(f"{source.folder} names no known card; name one, such as --model relufied1.")
    return specs.load_model_card(name)


def _recorded_size(source: SourceCheckpoint) -> specs.Size:
    """Return the size that the checkpoint's record names; raise `UsageError` where no such size ships."""
    name = source.record.size if source.record else None
    if name is None or name not in specs.list_names("models/sizes"):
        cause = f"names the size {name}, which is unknown here" if name else "does not state its size"
        raise UsageError(f"{source.folder} {cause}; choose a size for its recipe, such as --size tiny.")
    return specs.load_size(name)
