"""Training: the first model's loss, and how far the others are from it."""

import math
from statistics import fmean

from matplotlib.figure import Figure

from pi_sim.reporting.figures.style import line, panels
from pi_sim.reporting.findings import Findings

CAPTION = (
    "Training loss. Left: the first model's, for the scale. Right: what the others' is above it at the same steps, as "
    "a running mean over a twentieth of the training; the first tenth, where losses fall too fast for this scale, is "
    "left out. Blue GELU, orange ReLU; dashed without norms."
)
START = 10
"""One part in so many of a training is its start."""
WINDOW = 20
"""One part in so many of a training is a mean's window."""

Curve = dict[int, float]


def loss_curves(findings: Findings) -> Figure:
    """The lines of all models lie too close together to be told apart, hence the differences."""
    (first, baseline), *others = curves(findings).items()
    figure, (left, right) = panels(2, height=2.8)
    left.plot(list(baseline), list(baseline.values()), **line(findings, first))
    left.set_xscale("log")
    left.set_title(f"{first}: loss, nats per token")
    right.axhline(0, label=first, **line(findings, first))
    for model, curve in others:
        shown = smooth(late(difference(curve, baseline)))
        right.plot(list(shown), list(shown.values()), label=model, **line(findings, model))
    right.set_title(f"above {first}, nats per token")
    right.legend()
    for panel in (left, right):
        panel.set_xlabel("step")
        panel.grid(True)
    return figure


def curves(findings: Findings) -> dict[str, Curve]:
    """The finite losses by step of every model's reference training."""
    trainings = {model: findings.reference(model) for model in findings.models}
    found = {
        model: {step: loss for step, loss in training.record["loss_curve"] if _finite(loss)}
        for model, training in trainings.items()
        if training
    }
    return {model: curve for model, curve in found.items() if curve}


def _finite(loss: float | None) -> bool:
    """JSON has neither infinity nor NaN: null stands for them."""
    return loss is not None and math.isfinite(loss)


def difference(curve: Curve, baseline: Curve) -> Curve:
    """At the steps that both have."""
    return {step: loss - baseline[step] for step, loss in curve.items() if step in baseline}


def late(curve: Curve) -> Curve:
    """Without the start."""
    return dict(list(curve.items())[len(curve) // START :])


def smooth(curve: Curve) -> Curve:
    """The running mean, each at its window's middle."""
    window = max(1, len(curve) // WINDOW)
    steps, values = list(curve), list(curve.values())
    places = range(len(steps) - window + 1)
    return {steps[place + window // 2]: fmean(values[place : place + window]) for place in places}
