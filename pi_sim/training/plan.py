"""What is to be trained: a design, dimensions, a recipe, a corpus and a seed, every override checked."""

from dataclasses import dataclass
from typing import Any

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.training.corpus import absolute


@dataclass(frozen=True)
class Plan:
    """All that decides the result of a training."""

    card: specs.ModelCard
    size: specs.Size
    corpus: str
    seed: int
    overrides: tuple[str, ...] = ()

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
        return "-".join((self.card.name, self.size.name, *self.overrides, *seed))

    def record(self) -> dict[str, Any]:
        """The plan as a record tells it."""
        return {
            "card": self.card.name,
            "size": self.size.name,
            "architecture": self.card.architecture.model_dump(mode="json"),
            "dimensions": self.size.model_dump(exclude={"name", "title", "training"}),
            "recipe": self.recipe.model_dump(),
            "seed": self.seed,
        }


def make(model: str, size: str, corpus: str, seed: int, tokens: int | None, settings: tuple[str, ...]) -> Plan:
    """The plan of `pi-sim train`: the size's recipe, with the card's changes and then the user's."""
    known_card, known_size = specs.model_card(model), specs.size(size)
    chosen = _chosen((*settings, f"tokens={tokens}") if tokens else settings)
    in_design = {key: value for key, value in chosen.items() if key in specs.Architecture.model_fields}
    in_recipe = {key: _value(value) for key, value in chosen.items() if key not in in_design}
    recipe = {**known_card.training.get(known_size.name, {}), **in_recipe}
    return Plan(
        card=known_card.model_copy(update={"architecture": _override(known_card.architecture, in_design)}),
        size=known_size.model_copy(update={"training": _override(known_size.training, recipe)}),
        corpus=absolute(corpus),
        seed=seed,
        overrides=tuple(f"{key}={value}" for key, value in sorted(chosen.items())),
    )


def _override(spec: specs.SpecT, changes: dict[str, Any]) -> specs.SpecT:
    return specs.check(type(spec), {**spec.model_dump(), **changes}, "the settings of this training")


def _chosen(settings: tuple[str, ...]) -> dict[str, str]:
    """The settings by their key; of two for one key neither is preferred."""
    chosen: dict[str, str] = {}
    for key, value in map(_setting, settings):
        if key in chosen:
            raise UsageError(f"{key} is set twice, to {chosen[key]} and to {value}; set it once.")
        chosen[key] = value
    return chosen


def _setting(text: str) -> tuple[str, str]:
    """KEY=VALUE, where the key is a field of the architecture or of the recipe."""
    key, equals, value = text.partition("=")
    known = [*specs.Architecture.model_fields, *specs.Recipe.model_fields]
    if not equals or key not in known:
        raise UsageError(f"--set {text} is not KEY=VALUE with a key among {', '.join(known)}.")
    return key, value


def _value(text: str) -> str | None:
    """A recipe's value as TOML cannot say it: "none" switches a scale off."""
    return None if text == "none" else text
