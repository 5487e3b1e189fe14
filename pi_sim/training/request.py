"""Which of the two trainings a command asks for: from scratch, or on from a checkpoint."""

from pathlib import Path

from pi_sim.errors import UsageError
from pi_sim.training import fine_tuning, plan


def make(
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
    if source is None and model is not None:
        return plan.make(model, size or "tiny", corpus or "packages", seed, tokens, settings, recipe)
    if source is None or model is not None:
        raise UsageError(
            "give --model, a card to train from scratch, or --from, a checkpoint to go on with: one of them."
        )
    if recipe is not None:
        raise UsageError(
            "--recipe names one of a card's; with --from, give --size for its recipe and --set for changes."
        )
    return fine_tuning.make(source, size, corpus, seed, tokens, settings)
