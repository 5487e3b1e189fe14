"""Training plans: a model, dimensions, a recipe, a corpus and a seed, with every override checked."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.training.corpus import MIN_VOCABULARY, Corpus, absolute_name, train_tokenizer
from pi_sim.zoo.build import build_model

SQRT_WIDTH = "sqrt(width)"


@dataclass(frozen=True)
class Plan(ABC):
    """Everything that determines the result of a training."""

    size: specs.Size
    corpus: str
    seed: int
    overrides: tuple[str, ...]

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's name, with which the title begins."""

    @abstractmethod
    def build_model(self) -> PreTrainedModel:
        """Return the model before its first step."""

    @abstractmethod
    def build_meta_model(self) -> PreTrainedModel:
        """Return the model on the meta device, without data; raise `UsageError` for one that cannot be built."""

    @abstractmethod
    def make_tokenizer(self, corpus: Corpus) -> Tokenizer:
        """Return the tokenizer for the corpus."""

    @property
    def recipe(self) -> specs.Recipe:
        return self.size.training

    @property
    def tokens_per_step(self) -> int:
        return self.recipe.batch_size * self.size.context

    @property
    def steps(self) -> int:
        """Optimizer steps, the fewest that process the recipe's tokens."""
        return -(-self.recipe.tokens // self.tokens_per_step)

    @property
    def tokens(self) -> int:
        """Tokens that all steps process."""
        return self.steps * self.tokens_per_step

    @property
    def title(self) -> str:
        """Default name of the output folder: the model, and every difference from its default training."""
        seed = (f"seed{self.seed}",) if self.seed else ()
        return "-".join((self.name, *self.overrides, *seed))

    def to_record(self) -> dict[str, Any]:
        """Return the plan as JSON values, for a record."""
        return {
            "size": self.size.name,
            "dimensions": self.size.model_dump(exclude={"name", "title", "training"}),
            "recipe": self.recipe.model_dump(),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class FromScratch(Plan):
    """Training of a card's model from random weights, with a tokenizer of its own."""

    card: specs.ModelCard

    @property
    def name(self) -> str:
        return f"{self.card.name}-{self.size.name}"

    def build_model(self) -> PreTrainedModel:
        return build_model(self.card, self.size)

    def build_meta_model(self) -> PreTrainedModel:
        with torch.device("meta"):
            return self.build_model()

    def make_tokenizer(self, corpus: Corpus) -> Tokenizer:
        return train_tokenizer(corpus.training, self.size.vocabulary)

    def to_record(self) -> dict[str, Any]:
        design = self.card.architecture.model_dump(mode="json")
        return {"card": self.card.name, "architecture": design, **super().to_record()}


def plan_from_scratch(
    card: specs.ModelCard,
    size: specs.Size,
    corpus: str,
    seed: int,
    tokens: int | None,
    settings: tuple[str, ...],
    recipe: str | None = None,
) -> FromScratch:
    """Return the plan of `pi-sim train --model`: the size's recipe, changed by the card and then by the user."""
    if size.vocabulary < MIN_VOCABULARY:
        raise UsageError(
            f"size {size.name} has a vocabulary of {size.vocabulary}; a tokenizer needs at least {MIN_VOCABULARY}."
        )
    chosen = parse_settings(settings, tokens, (*specs.Architecture.model_fields, *specs.Recipe.model_fields))
    in_design = {key: value for key, value in chosen.items() if key in specs.Architecture.model_fields}
    in_recipe = {key: value for key, value in chosen.items() if key not in in_design}
    changes = {**card_overrides(card, size, recipe), **in_recipe}
    return FromScratch(
        card=card.model_copy(update={"architecture": apply_changes(card.architecture, in_design)}),
        size=size.model_copy(update={"training": recipe_with(size, changes)}),
        corpus=absolute_name(corpus),
        seed=seed,
        overrides=override_labels(recipe, chosen),
    )


def recipe_with(size: specs.Size, changes: dict[str, Any]) -> specs.Recipe:
    """Return the size's recipe with changes; "sqrt(width)" stands for the root of its width."""
    root = math.sqrt(size.width)
    return apply_changes(size.training, {key: root if value == SQRT_WIDTH else value for key, value in changes.items()})


def card_overrides(card: specs.ModelCard, size: specs.Size, recipe: str | None) -> dict[str, Any]:
    """Return the card's changes to the size's recipe: those of the named recipe, by default the one for the size.

    Raises `UsageError` for a recipe that the card does not have.
    """
    if recipe and recipe != size.name and recipe not in card.training:
        names = ", ".join(card.training) or "none"
        raise UsageError(f"the card {card.name} has no recipe {recipe!r}; choose among its own: {names}.")
    return card.training.get(recipe or size.name, {})


def apply_changes(spec: specs.TomlModelT, changes: dict[str, Any]) -> specs.TomlModelT:
    """Return the table with changes, validated."""
    return specs.validate_table(type(spec), {**spec.model_dump(), **changes}, "the settings of this training")


def override_labels(recipe: str | None, settings: dict[str, str]) -> tuple[str, ...]:
    """Return the parts of a title that name the chosen recipe and settings."""
    pairs = [("recipe", recipe)] if recipe else []
    return tuple(f"{key}={value}" for key, value in [*pairs, *sorted(settings.items())])


def parse_settings(settings: tuple[str, ...], tokens: int | None, keys: tuple[str, ...]) -> dict[str, str]:
    """Return the settings KEY=VALUE as a table; raise `UsageError` for a key not among `keys` or set twice."""
    table: dict[str, str] = {}
    for text in (*settings, f"tokens={tokens}") if tokens else settings:
        key, equals, value = text.partition("=")
        if not equals or key not in keys:
            raise UsageError(f"--set {text} is not KEY=VALUE with a key among {', '.join(keys)}.")
        if key in table:
            raise UsageError(f"{key} is set twice, to {table[key]} and to {value}; set it once.")
        table[key] = value
    return table
