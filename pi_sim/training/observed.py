"""What a model looks like along its training: observed at a few steps on held-out text, kept in the Trainer's log.

The log is part of every checkpoint, so that an interrupted training keeps what it saw before.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from pi_sim.diagnosis.brief import quick_diagnosis
from pi_sim.training.held_out import SAMPLE_CHUNKS
from pi_sim.training.lengths import batch_limit
from pi_sim.zoo.scales import ScaledModel

OBSERVATION_COUNT = 20  # evenly spaced, besides the untrained model
OBSERVED_CHUNKS = 8  # at most that are looked into, of those whose loss is taken
OBSERVATION_KEY = "observation"  # of its entries in the log


class ObservationCallback(TrainerCallback):  # type: ignore[misc]
    """Adds observations of the model on the first held-out chunks (N, T) to the Trainer's log."""

    def __init__(self, chunks: Tensor, tokens_per_step: int) -> None:
        self.ids = chunks[:SAMPLE_CHUNKS]
        self.tokens_per_step = tokens_per_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if state.global_step == 0:
            self._append_observation(state, context["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        if is_observation_due(state.global_step, state.max_steps):
            self._append_observation(state, context["model"])

    def _append_observation(self, state: Any, model: ScaledModel) -> None:
        if state.is_world_process_zero:
            tokens = state.global_step * self.tokens_per_step
            found = {"step": state.global_step, "tokens": tokens, **observe_model(model, self.ids)}
            state.log_history.append({"step": state.global_step, OBSERVATION_KEY: found})


def is_observation_due(step: int, steps: int) -> bool:
    """Whether another twentieth of the steps is over, as it is after the last one."""
    return OBSERVATION_COUNT * step // steps > OBSERVATION_COUNT * (step - 1) // steps


def logged_observations(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The observations in a Trainer's log."""
    return [entry[OBSERVATION_KEY] for entry in log if OBSERVATION_KEY in entry]


@torch.no_grad()
def observe_model(model: ScaledModel, ids: Tensor) -> dict[str, Any]:
    """The held-out loss of the chunks (N, T) and a look into the first; the training goes on as if without."""
    training, ids = model.training, ids.to(next(model.parameters()).device)
    with torch.random.fork_rng():
        model.eval()
        try:
            return {"held_out_loss": chunk_loss(model, ids), **quick_diagnosis(model, ids[: chunk_limit(ids)])}
        finally:
            model.train(training)


def chunk_loss(model: ScaledModel, ids: Tensor) -> float:
    """The mean loss in nats of predicting ids[:, 1:] of the chunks (N, T)."""
    total: float = sum(model(batch).loss.item() * len(batch) for batch in torch.split(ids, chunk_limit(ids)))
    return total / len(ids)


def chunk_limit(ids: Tensor) -> int:
    """How many of the chunks (N, T) are looked at together: fewer where they are long."""
    return min(OBSERVED_CHUNKS, batch_limit(ids.shape[1]))
