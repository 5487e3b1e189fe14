"""The Pareto front of perplexity against seconds, one panel for each network."""

from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pi_sim.reporting.figures.style import ACTIVATION, OTHER, grid
from pi_sim.reporting.pareto import Comparison
from pi_sim.reporting.units import SECONDS, fitting

ACROSS = 2
COLOR = ACTIVATION["gelu"]
SIDES: tuple[dict[str, Any], ...] = ({"xytext": (5, 4)}, {"xytext": (-4, -9), "ha": "right"})
"""Names stand by turns above and below the front, so that those of close designs do not lie on each other."""


def fronts(comparison: Comparison) -> Figure:
    """Two panels side by side."""
    figure, panels = grid(len(comparison.networks), ACROSS, height=2.8)
    for place, (panel, network) in enumerate(zip(panels, comparison.networks, strict=True)):
        _draw(panel, comparison, network)
        if place % ACROSS == 0:
            panel.set_ylabel("perplexity")
    return figure


def _draw(panel: Axes, comparison: Comparison, network: str) -> None:
    """Every design, from its best seed to its worst; the front in steps, with names."""
    seconds, best = comparison.networks[network], comparison.front(network)
    unit = fitting(SECONDS, list(seconds.values()))
    places = {model: (seconds[model] / unit.divisor, comparison.designs[model].mean) for model in seconds}
    for model, (x, y) in places.items():
        color, values = COLOR if model in best else OTHER, comparison.designs[model].values
        panel.vlines(x, min(values), max(values), color=color, linewidth=1)
        panel.plot(x, y, "o", color=color, markersize=5)
    panel.step(*zip(*(places[model] for model in best), strict=True), where="post", color=COLOR, linewidth=1.1)
    for model, side in zip(best, cycle(SIDES), strict=False):
        panel.annotate(model, places[model], textcoords="offset points", fontsize=7, **side)
    panel.set_title(network)
    panel.set_xlabel(unit.name)
    panel.margins(x=0.4, y=0.2)
    panel.grid(True)
