"""Callbacks of a training with transformers' Trainer: progress, observations, interruption and divergence.

Observations and losses are entries of the Trainer's log. The log is part of every checkpoint, so an interrupted
training keeps them.
"""

import math
import signal
import time
from types import FrameType
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import TrainerCallback

from pi_sim.diagnosis.diagnose import quick_diagnosis
from pi_sim.training import distributed
from pi_sim.training.evaluation import SAMPLE_CHUNKS, batch_limit
from pi_sim.zoo.scales import ScaledModel

PROGRESS_LINES = 20
"""Lines that an uninterrupted training prints where there is no terminal."""
OBSERVATION_COUNT = 20
"""Observations of a training, evenly spaced, besides that of the untrained model."""
OBSERVED_CHUNKS = 8
"""Chunks in the diagnosis of an observation, at most; its loss is taken over all `SAMPLE_CHUNKS`."""
OBSERVATION_KEY = "observation"
"""Key of an observation in the Trainer's log."""

TrainerLog = list[dict[str, Any]]


class DivergenceCallback(TrainerCallback):  # type: ignore[misc]
    """Ends the training, with a checkpoint, at the first logged loss that is NaN or infinite.

    Such a training cannot recover: the divergence is its result.
    """

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if divergence_step(state.log_history[-1:]) is not None:
            control.should_save = control.should_training_stop = True


def divergence_step(log: TrainerLog) -> int | None:
    """Return the step of the first loss in a Trainer's log that is not finite; a loss is the mean since the last."""
    return next((entry["step"] for entry in log if not math.isfinite(entry.get("loss", 0.0))), None)


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
            observation = {"step": state.global_step, "tokens": tokens, **observe_model(model, self.ids)}
            state.log_history.append({"step": state.global_step, OBSERVATION_KEY: observation})


def is_observation_due(step: int, steps: int) -> bool:
    """Return True where the step completes another twentieth of all steps; the last step does."""
    return OBSERVATION_COUNT * step // steps > OBSERVATION_COUNT * (step - 1) // steps


@torch.no_grad()
def observe_model(model: ScaledModel, ids: Tensor) -> dict[str, Any]:
    """Return the held-out loss of the chunks (N, T) and a quick diagnosis of the first ones.

    Neither the model's mode nor the state of the random number generators changes.
    """
    training, ids = model.training, ids.to(next(model.parameters()).device)
    with torch.random.fork_rng():
        model.eval()
        try:
            return {"held_out_loss": chunk_loss(model, ids), **quick_diagnosis(model, ids[: chunk_limit(ids)])}
        finally:
            model.train(training)


def chunk_loss(model: ScaledModel, ids: Tensor) -> float:
    """Return the mean loss in nats of predicting ids[:, 1:] of the chunks (N, T)."""
    total: float = sum(model(batch).loss.item() * len(batch) for batch in torch.split(ids, chunk_limit(ids)))
    return total / len(ids)


def chunk_limit(ids: Tensor) -> int:
    """Return the number of chunks (N, T) that are evaluated together, fewer for long chunks."""
    return min(OBSERVED_CHUNKS, batch_limit(ids.shape[1]))


class ProgressBarCallback(TrainerCallback):  # type: ignore[misc]
    """Progress on stderr, a bar on a terminal and plain lines elsewhere; logs the elapsed seconds with every entry."""

    def __init__(self, title: str, tokens_per_step: int) -> None:
        self.title = title
        self.tokens_per_step = tokens_per_step
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self.status = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start_time, self.first_step = time.monotonic(), state.global_step
        self.printed_lines = _lines_due(state)
        self.earlier_seconds = state.log_history[-1]["seconds"] if state.log_history else 0.0
        self.task = self.bar.add_task(self.title, total=state.max_steps, note="")

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        entry, seconds = state.log_history[-1], time.monotonic() - self.start_time
        entry["seconds"] = self.earlier_seconds + seconds
        if "loss" in entry:
            speed = (state.global_step - self.first_step) * self.tokens_per_step / seconds
            self.status = f"loss {entry['loss']:.3f}, {speed:,.0f} tokens/s"
            self._print_line(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_log |= control.should_save  # losses that are not logged are lost when the training continues
        self.bar.update(self.task, completed=state.global_step, note=self.status)

    def _print_line(self, state: Any) -> None:
        """Print a plain line for every twentieth of the steps."""
        if self.bar.disable and _lines_due(state) > self.printed_lines:
            self.printed_lines = _lines_due(state)
            click.echo(f"{self.title}: step {state.global_step}/{state.max_steps}, {self.status}", err=True)


def _lines_due(state: Any) -> int:
    """Return the number of progress lines due at the current step."""
    return int(PROGRESS_LINES * state.global_step // state.max_steps)


class InterruptCallback(TrainerCallback):  # type: ignore[misc]
    """Ends the training after the current step, with a checkpoint, on Ctrl-C; a second Ctrl-C ends it at once."""

    interrupted = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if distributed.any_rank(self.interrupted):
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        signal.signal(signal.SIGINT, self.previous_handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self.previous_handler)
