"""Which of the two trainings a command asks for: from scratch, or on from a checkpoint."""

from pathlib import Path

from pi_sim.errors import UsageError
from pi_sim.training import fine_tuning, plan


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
        return fine_tuning.plan_fine_tuning(source, size, corpus, seed, tokens, settings, model, recipe)
    if source is not None or model is None:
        raise UsageError(
            "give --model, a card to train from scratch, or --from, a checkpoint to go on with: one of them; both only "
            "with --recipe, for one of that card's."
        )
    return plan.plan_from_scratch(model, size or "tiny", corpus or "packages", seed, tokens, settings, recipe)
