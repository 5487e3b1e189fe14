"""Figures: SVG drawn from findings; the same findings give the same bytes."""

import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pi_sim.reporting.findings import Findings
from pi_sim.reporting.units import BYTES, SECONDS, fitting

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pi-sim",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "grid.color": "#e6e6e6",
}
# Okabe and Ito's palette, which colour-blind readers can tell apart.
ACTIVATION = {"gelu": "#0072B2", "relu": "#D55E00"}
OPERATION = {
    "softmax": "#0072B2",
    "gelu": "#E69F00",
    "relu": "#D55E00",
    "layernorm": "#009E73",
    "linear": "#56B4E9",
    "matmul": "#CC79A7",
    "embedding": "#F0E442",
    "multiply": "#000000",
}
OTHER = "#BBBBBB"
SLIVER = 0.02
"""An operation below this share of the longest bar is drawn as part of the others."""
START = 10
"""One part in so many of a training is its start: there losses change too fast for the scale of the rest."""
WIDTH = 7.2


def draw(findings: Findings) -> Iterator[tuple[str, str]]:
    """(name, SVG) of every figure that the findings have the data for."""
    yield "bytes", _svg(lambda: bytes_by_operation(findings))
    if any(_points(findings, model, "wan") for model in findings.models):
        yield "tradeoff", _svg(lambda: tradeoff(findings))
    if _curves(findings):
        yield "loss", _svg(lambda: loss_curves(findings))


def _svg(figure: Callable[[], Figure]) -> str:
    """A figure as SVG without a date."""
    text = io.StringIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever the user's matplotlibrc says
        mpl.rcParams.update(STYLE)
        figure().savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": "pi-sim"})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def bytes_by_operation(findings: Findings) -> Figure:
    """One bar for every model under every protocol, by operation."""
    runs = findings.runs
    costs = [{op: cost["bytes"] for op, cost in run.by_operation().items()} for run in runs]
    longest = max(sum(cost.values()) for cost in costs)
    unit = fitting(BYTES, [longest])
    figure, axes = _panels(1, height=0.7 + 0.42 * len(runs))
    left = [0.0] * len(runs)
    for name, color, ops in _parts(costs, longest):
        widths = [sum(cost.get(op, 0) for op in ops) / unit.divisor for cost in costs]
        axes[0].barh(range(len(runs)), widths, left=left, height=0.66, color=color, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, end in enumerate(left):
        axes[0].text(end + longest / unit.divisor * 0.01, place, f"{end:,.0f}", va="center", color="#444444")
    axes[0].set_yticks(range(len(runs)), [f"{run.model} · {run.protocol}" for run in runs])
    axes[0].invert_yaxis()
    axes[0].set_xlabel(f"sent by one party, {unit.name}")
    figure.legend(loc="outside upper center", ncols=6, columnspacing=1.4, handlelength=1.0)
    return figure


def _parts(costs: list[dict[str, int]], longest: int) -> Iterator[tuple[str, str, list[str]]]:
    """(label, colour, operations) of each part of the bars: the visible operations, then all others together."""
    seen = sorted({op for cost in costs for op in cost})
    visible = [op for op in OPERATION if max(cost.get(op, 0) for cost in costs) >= SLIVER * longest]
    yield from ((op, OPERATION[op], [op]) for op in visible)
    rest = [op for op in seen if op not in visible]
    if rest:
        yield "other", OTHER, rest


def tradeoff(findings: Findings) -> Figure:
    """Held-out perplexity against predicted seconds, one panel for each network."""
    figure, axes = _panels(2, height=3.0)
    protocols = sorted({run.protocol for run in findings.runs})
    shapes = dict(zip(protocols, "osD^v<>", strict=False))
    for panel, network in zip(axes, ("wan", "lan"), strict=True):
        _tradeoff_on(panel, findings, network, shapes)
    axes[0].set_ylabel("held-out perplexity")
    if len(protocols) > 1:
        keys = [Line2D([], [], marker=shape, color=OTHER, linestyle="", label=name) for name, shape in shapes.items()]
        figure.legend(handles=keys, loc="outside upper right", ncols=len(keys), handletextpad=0.2)
    return figure


def _tradeoff_on(panel: Axes, findings: Findings, network: str, shapes: dict[str, str]) -> None:
    """One panel: a point for every model under every protocol, and the model's name above its points."""
    points = {model: _points(findings, model, network) for model in findings.models}
    unit = fitting(SECONDS, [seconds for found in points.values() for _, seconds, _ in found])
    for model, found in points.items():
        for protocol, seconds, perplexity in reversed(found):
            panel.plot(seconds / unit.divisor, perplexity, **_marker(findings, model, shapes.get(protocol, "o")))
        if found:
            middle = sum(seconds for _, seconds, _ in found) / len(found) / unit.divisor
            _name(panel, findings, model, middle, found[0][2])
    panel.set_title(network)
    panel.set_xlabel(f"predicted network time, {unit.name}")
    panel.margins(x=0.25)
    _widen(panel, [perplexity for found in points.values() for _, _, perplexity in found])
    panel.grid(True)
    panel.set_axisbelow(True)


def _name(panel: Axes, findings: Findings, model: str, x: float, y: float) -> None:
    """A model's name at its points: ReLU below, all others above, so that neighbours stay legible."""
    below = findings.architecture(model).get("activation") == "relu"
    place: dict[str, Any] = {"xytext": (0, -7), "va": "top"} if below else {"xytext": (0, 7), "va": "bottom"}
    panel.annotate(model, (x, y), textcoords="offset points", ha="center", fontsize=8, **place)


def _widen(panel: Axes, values: list[float]) -> None:
    """Show at least a tenth of the perplexity's size, so that small differences look small."""
    if values:
        middle, span = (min(values) + max(values)) / 2, max(values) - min(values)
        reach = max(0.75 * span, 0.05 * middle)
        panel.set_ylim(middle - reach, middle + reach)


def _points(findings: Findings, model: str, network: str) -> list[tuple[str, float, float]]:
    """(protocol, seconds, perplexity) of a model's runs, where all three are known numbers."""
    reference = findings.reference(model)
    if reference is None or not math.isfinite(reference.perplexity):
        return []
    seconds = {run.protocol: run.record["total"]["seconds"].get(network) for run in findings.runs_of(model)}
    return [(protocol, each, reference.perplexity) for protocol, each in seconds.items() if each is not None]


def loss_curves(findings: Findings) -> Figure:
    """The training loss of every model, and beside it the difference from the first one's on the same batches."""
    figure, (left, right) = _panels(2, height=2.8)
    curves = _curves(findings)
    first, baseline = next(iter(curves.items()))
    behind = {
        model: {step: loss - baseline[step] for step, loss in curve.items() if step in baseline}
        for model, curve in curves.items()
    }
    left.set_title("training loss, nats per token")
    right.set_title(f"difference from {first}")
    for panel, lines in ((left, curves), (right, behind)):
        for model, line in lines.items():
            panel.plot(list(line), list(line.values()), label=model, **_line(findings, model))
        panel.set_ylim(*_late_range(lines))
        panel.set_xlabel("step")
        panel.grid(True)
    left.legend()
    return figure


def _curves(findings: Findings) -> dict[str, dict[int, float]]:
    """The finite losses by step of every model's reference training."""
    trainings = {model: findings.reference(model) for model in findings.models}
    curves = {
        model: {step: loss for step, loss in training.record["loss_curve"] if math.isfinite(loss)}
        for model, training in trainings.items()
        if training
    }
    return {model: curve for model, curve in curves.items() if curve}


def _late_range(lines: dict[str, dict[int, float]]) -> tuple[float, float]:
    """From the least to the largest value after the start."""
    late = [value for line in lines.values() for value in list(line.values())[len(line) // START :]]
    low, high = min(late, default=0.0), max(late, default=0.0)
    margin = 0.05 * (high - low) or 0.01
    return low - margin, high + margin


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A white figure with panels side by side."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _look(findings: Findings, model: str) -> tuple[str, bool]:
    """A model's colour, by its activation, and whether it has norms."""
    design = findings.architecture(model)
    return ACTIVATION.get(design.get("activation", ""), OTHER), design.get("norm") != "none"


def _line(findings: Findings, model: str) -> dict[str, Any]:
    """Solid with norms, dashed without."""
    color, norm = _look(findings, model)
    return {"color": color, "linestyle": "-" if norm else "--", "linewidth": 1.1}


def _marker(findings: Findings, model: str, shape: str) -> dict[str, Any]:
    """Filled with norms, hollow without."""
    color, norm = _look(findings, model)
    return {"marker": shape, "color": color, "markerfacecolor": color if norm else "white", "markersize": 7}
