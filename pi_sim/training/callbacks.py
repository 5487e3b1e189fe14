"""A training whose loss is no longer a finite number cannot recover: it ends at once, and that is its result."""

# MERGED: What a model looks like along its training: observed at a few steps on held-out text, kept in the Trainer's log. The log is part of every checkpoint, so that an interrupted training keeps what it saw before.  # noqa: E501
# MERGED: What a training tells while it runs, and how it stops when it is asked to.

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

TrainerLog = list[dict[str, Any]]


class DivergenceCallback(TrainerCallback):  # type: ignore[misc]
    """Ends the training at the first logged loss that is NaN or infinite, with a checkpoint that tells so."""

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if divergence_step(state.log_history[-1:]) is not None:
            control.should_save = control.should_training_stop = True


def divergence_step(log: TrainerLog) -> int | None:
    """The step of the first loss in a Trainer's log that is not finite; a loss is the mean since the one before."""
    return next((entry["step"] for entry in log if not math.isfinite(entry.get("loss", 0.0))), None)


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


PROGRESS_LINES = 20  # that a whole training prints where there is no terminal


class ProgressBarCallback(TrainerCallback):  # type: ignore[misc]
    """A progress bar on a terminal, plain lines elsewhere, on stderr; keeps the seconds beside each loss."""

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
        control.should_log |= control.should_save  # a loss that is not logged is lost where the training continues
        self.bar.update(self.task, completed=state.global_step, note=self.status)

    def _print_line(self, state: Any) -> None:
        """A plain line each time another twentieth of the training is over."""
        if self.bar.disable and _lines_due(state) > self.printed_lines:
            self.printed_lines = _lines_due(state)
            click.echo(f"{self.title}: step {state.global_step}/{state.max_steps}, {self.status}", err=True)


def _lines_due(state: Any) -> int:
    """How much of the training is over, in lines."""
    return int(PROGRESS_LINES * state.global_step // state.max_steps)


class InterruptCallback(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C ends the training after the running step, with a checkpoint; a second one ends it at once."""

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
