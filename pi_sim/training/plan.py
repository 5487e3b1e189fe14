"""What is to be trained: a model, dimensions, a recipe, a corpus and a seed, every override checked."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.training import corpus, tokenizer
from pi_sim.training.corpus import Corpus
from pi_sim.zoo.build import build_model

SQRT_WIDTH = "sqrt(width)"


@dataclass(frozen=True)
class Plan(ABC):
    """All that decides the result of a training."""

    size: specs.Size
    corpus: str
    seed: int
    overrides: tuple[str, ...]

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's name, of which the title is made."""

    @abstractmethod
    def build_model(self) -> PreTrainedModel:
        """The model before its first step."""

    @abstractmethod
    def build_meta_model(self) -> PreTrainedModel:
        """The same on the meta device, without data: it refuses at once what cannot be built."""

    @abstractmethod
    def make_tokenizer(self, text: Corpus) -> Tokenizer:
        """What makes tokens of the corpus."""

    @property
    def recipe(self) -> specs.Recipe:
        return self.size.training

    @property
    def tokens_per_step(self) -> int:
        return self.recipe.batch_size * self.size.context

    @property
    def steps(self) -> int:
        """Optimizer steps: the fewest that see the recipe's tokens."""
        return -(-self.recipe.tokens // self.tokens_per_step)

    @property
    def tokens(self) -> int:
        """Tokens that those steps see."""
        return self.steps * self.tokens_per_step

    @property
    def title(self) -> str:
        """A folder's name: the model, and what distinguishes this training from the default one."""
        seed = (f"seed{self.seed}",) if self.seed else ()
        return "-".join((self.name, *self.overrides, *seed))

    def to_record(self) -> dict[str, Any]:
        """The plan as a record tells it."""
        return {
            "size": self.size.name,
            "dimensions": self.size.model_dump(exclude={"name", "title", "training"}),
            "recipe": self.recipe.model_dump(),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class FromScratch(Plan):
    """A card's model, from random weights and with a tokenizer of its own."""

    card: specs.ModelCard

    @property
    def name(self) -> str:
        return f"{self.card.name}-{self.size.name}"

    def build_model(self) -> PreTrainedModel:
        return build_model(self.card, self.size)

    def build_meta_model(self) -> PreTrainedModel:
        with torch.device("meta"):
            return self.build_model()

    def make_tokenizer(self, text: Corpus) -> Tokenizer:
        return tokenizer.train_tokenizer(text.training, self.size.vocabulary)

    def to_record(self) -> dict[str, Any]:
        design = self.card.architecture.model_dump(mode="json")
        return {"card": self.card.name, "architecture": design, **super().to_record()}


def plan_from_scratch(
    model: str,
    size: str,
    corpus_name: str,
    seed: int,
    tokens: int | None,
    settings: tuple[str, ...],
    recipe: str | None = None,
) -> FromScratch:
    """The plan of `pi-sim train --model`: the size's recipe, with the card's changes and then the user's."""
    card, known = specs.load_model_card(model), specs.load_size(size)
    if known.vocabulary < tokenizer.MIN_VOCABULARY:
        raise UsageError(
            f"{size} has a vocabulary of {known.vocabulary}; a tokenizer has {tokenizer.MIN_VOCABULARY} at least."
        )
    chosen = parse_settings(settings, tokens, (*specs.Architecture.model_fields, *specs.Recipe.model_fields))
    in_design = {key: value for key, value in chosen.items() if key in specs.Architecture.model_fields}
    in_recipe = {key: value for key, value in chosen.items() if key not in in_design}
    changes = {**card_overrides(card, known, recipe), **in_recipe}
    return FromScratch(
        card=card.model_copy(update={"architecture": apply_changes(card.architecture, in_design)}),
        size=known.model_copy(update={"training": recipe_with(known, changes)}),
        corpus=corpus.absolute_name(corpus_name),
        seed=seed,
        overrides=(*([f"recipe={recipe}"] if recipe else []), *setting_labels(chosen)),
    )


def recipe_with(size: specs.Size, changes: dict[str, Any]) -> specs.Recipe:
    """The size's recipe with changes, which may say sqrt(width) for a scale."""
    width = math.sqrt(size.width)
    return apply_changes(
        size.training, {key: width if value == SQRT_WIDTH else value for key, value in changes.items()}
    )


def card_overrides(card: specs.ModelCard, size: specs.Size, recipe: str | None) -> dict[str, Any]:
    """What the card's recipe of that name, or for that size, lays over the size's own."""
    if recipe and recipe != size.name and recipe not in card.training:
        known = ", ".join(card.training) or "none"
        raise UsageError(f"the card {card.name} has no recipe {recipe!r}; of its own it has {known}.")
    return card.training.get(recipe or size.name, {})


def apply_changes(spec: specs.TomlModelT, changes: dict[str, Any]) -> specs.TomlModelT:
    """The table with some of its values changed, and checked."""
    return specs.validate_table(type(spec), {**spec.model_dump(), **changes}, "the settings of this training")


def setting_labels(chosen: dict[str, str]) -> tuple[str, ...]:
    """The settings as a title tells them."""
    return tuple(f"{key}={value}" for key, value in sorted(chosen.items()))


def parse_settings(settings: tuple[str, ...], tokens: int | None, known: tuple[str, ...]) -> dict[str, str]:
    """The settings KEY=VALUE by their key, one of those known; of two for one key neither is preferred."""
    chosen: dict[str, str] = {}
    for text in (*settings, f"tokens={tokens}") if tokens else settings:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise UsageError(f"--set {text} is not KEY=VALUE with a key among {', '.join(known)}.")
        if key in chosen:
            raise UsageError(f"{key} is set twice, to {chosen[key]} and to {value}; set it once.")
        chosen[key] = value
    return chosen
