"""The Pareto front of perplexity against seconds, one panel for each network."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pi_sim.reporting.figures.style import ACTIVATION, OTHER, grid
from pi_sim.reporting.pareto import Comparison
from pi_sim.reporting.units import SECONDS, fitting

ACROSS = 3
COLOR = ACTIVATION["gelu"]


def fronts(comparison: Comparison) -> Figure:
    """Up to three panels side by side."""
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
    for model in best:
        panel.annotate(model, places[model], xytext=(4, 4), textcoords="offset points", fontsize=7)
    panel.set_title(network)
    panel.set_xlabel(unit.name)
    panel.margins(0.2)
    panel.grid(True)
