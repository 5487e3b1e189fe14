"""What a training tells while it runs, and how it stops when it is asked to."""

import signal
import time
from types import FrameType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from pi_sim.training import processes

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
        if processes.any_rank(self.interrupted):
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        signal.signal(signal.SIGINT, self.previous_handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self.previous_handler)
