"""Quality against time: held-out perplexity and predicted seconds, one panel for each network."""

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pi_sim.reporting.figures.style import OTHER, marker, panels
from pi_sim.reporting.findings import Findings
from pi_sim.reporting.seeds import Seeds
from pi_sim.reporting.units import SECONDS, fitting

SHAPES = "osD^v<>"
WRONG = "X"


@dataclass(frozen=True)
class Point:
    """A model under a protocol."""

    model: str
    shape: str
    perplexity: Seeds
    seconds: dict[str, float]


def caption(findings: Findings) -> str:
    wrong = " A cross: the private result is wrong." if any(run.wrong for run in findings.runs) else ""
    return (
        "Perplexity in the clear against predicted network time. Mean over the seeds, with a line from the least to "
        f"the largest; time of one sequence of {findings.length} tokens. Hollow without norms.{wrong}"
    )


def points(findings: Findings) -> list[Point]:
    """The models with a finite perplexity, at one length."""
    shapes = _shapes(findings)
    return [
        Point(run.model, WRONG if run.wrong else shapes[run.protocol], found, run.record["total"]["seconds"])
        for run in findings.priced
        if run.length == findings.length and (found := findings.perplexity(run.model)) and math.isfinite(found.mean)
    ]


def tradeoff(findings: Findings) -> Figure:
    """Two panels with the same perplexities."""
    figure, axes = panels(2, height=3.2, sharey=True)
    found = points(findings)
    for panel, network in zip(axes, ("wan", "lan"), strict=True):
        _draw(panel, findings, found, network)
    axes[0].set_ylabel("held-out perplexity")
    _widen(axes[0], [value for point in found for value in point.perplexity.values])
    figure.legend(handles=_keys(findings, found), loc="outside upper center", ncols=4, handletextpad=0.2)
    return figure


def _draw(panel: Axes, findings: Findings, found: list[Point], network: str) -> None:
    """One panel; models that come first lie on top."""
    known = [point for point in found if network in point.seconds]
    unit = fitting(SECONDS, [point.seconds[network] for point in known])
    for point in reversed(known):
        look = marker(findings, point.model, point.shape)
        seconds, values = point.seconds[network] / unit.divisor, point.perplexity.values
        panel.vlines(seconds, min(values), max(values), color=look["color"], linewidth=1)
        panel.plot(seconds, point.perplexity.mean, **look)
    panel.set_title(network)
    panel.set_xlabel(f"predicted network time, {unit.name}")
    panel.margins(x=0.15)
    panel.grid(True)


def _shapes(findings: Findings) -> dict[str, str]:
    """A shape for every protocol."""
    protocols = sorted({run.protocol for run in findings.runs})
    return {protocol: SHAPES[place % len(SHAPES)] for place, protocol in enumerate(protocols)}


def _keys(findings: Findings, found: list[Point]) -> list[Line2D]:
    """The legend: every model, then every protocol and the cross, as far as they were drawn."""
    used = {point.shape for point in found}
    models = dict.fromkeys(point.model for point in found)
    shapes = {name: shape for name, shape in _shapes(findings).items() if shape in used}
    if WRONG in used:
        shapes["private result wrong"] = WRONG
    return [
        *(_key(model, marker(findings, model)) for model in models),
        *(_key(name, {"marker": shape, "color": OTHER}) for name, shape in shapes.items() if len(shapes) > 1),
    ]


def _key(label: str, look: dict[str, Any]) -> Line2D:
    return Line2D([], [], linestyle="", label=label, **look)


def _widen(panel: Axes, values: list[float]) -> None:
    """Show at least a tenth of the perplexity's size, so that small differences look small."""
    middle, span = (min(values) + max(values)) / 2, max(values) - min(values)
    reach = max(0.75 * span, 0.05 * middle)
    panel.set_ylim(middle - reach, middle + reach)
