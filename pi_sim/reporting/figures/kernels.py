"""What an element takes by operation: a dot for every protocol, on a logarithmic scale."""

from matplotlib.figure import Figure

from pi_sim.reporting.figures.style import OTHER, panels

COLORS = {"crypten": "#0072B2", "crypten_tanh": "#56B4E9", "shaft": "#E69F00", "lean": "#D55E00"}

Dots = dict[str, dict[str, float]]
"""By operation and protocol."""


def dots(values: Dots, title: str) -> Figure:
    """One line for each operation, the one with the widest span at the top."""
    names = sorted(values, key=lambda name: _span(list(values[name].values())))
    figure, (panel,) = panels(1, height=0.9 + 0.24 * len(names))
    for place, name in enumerate(names):
        found = values[name].values()
        panel.plot([min(found), max(found)], [place, place], color=OTHER, linewidth=1.2, zorder=0)
    for protocol in dict.fromkeys(each for found in values.values() for each in found):
        points = [(values[name][protocol], place) for place, name in enumerate(names) if protocol in values[name]]
        panel.plot(
            *zip(*points, strict=True), "o", markersize=5.5, color=COLORS.get(protocol, "#000000"), label=protocol
        )
    panel.set_xscale("log")
    panel.set_yticks(range(len(names)), names)
    panel.set_xlabel(title)
    panel.grid(True, axis="x")
    figure.legend(loc="outside upper center", ncols=6, handletextpad=0.2)
    return figure


def _span(found: list[float]) -> float:
    return max(found) / min(found)
