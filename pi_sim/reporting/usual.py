"""What a training has where nothing was changed: the design on its card, and the recipe of its size."""

from typing import Any

from pi_sim import specs


def design(model: str) -> dict[str, str]:
    """The architecture on the model card; empty for a model without a card."""
    return specs.model_card(model).architecture.model_dump() if model in specs.names("models") else {}


def recipe(model: str, size: str) -> dict[str, Any]:
    """The size's recipe with the card's changes; empty where either is unknown."""
    if model not in specs.names("models") or size not in specs.names("models/sizes"):
        return {}
    return {**specs.size(size).training.model_dump(), **specs.model_card(model).training.get(size, {})}


def context(size: str) -> int | None:
    """The length that models of a size are trained for."""
    return specs.size(size).context if size in specs.names("models/sizes") else None
