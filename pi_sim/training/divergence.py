"""A training whose loss is no longer a finite number cannot recover: it ends at once, and that is its result."""

import math
from typing import Any

from transformers import TrainerCallback

TrainerLog = list[dict[str, Any]]


class DivergenceCallback(TrainerCallback):  # type: ignore[misc]
    """Ends the training at the first logged loss that is NaN or infinite, with a checkpoint that tells so."""

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if divergence_step(state.log_history[-1:]) is not None:
            control.should_save = control.should_training_stop = True


def divergence_step(log: TrainerLog) -> int | None:
    """The step of the first loss in a Trainer's log that is not finite; a loss is the mean since the one before."""
    return next((entry["step"] for entry in log if not math.isfinite(entry.get("loss", 0.0))), None)
