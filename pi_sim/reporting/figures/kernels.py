"""What an element takes by operation: a dot for every protocol, on a logarithmic scale."""

from matplotlib.figure import Figure

from pi_sim.reporting.figures.style import OTHER, panels

COLORS = {"crypten": "#0072B2", "crypten_tanh": "#56B4E9", "shaft": "#E69F00", "lean": "#D55E00"}
LARGEST, STEP = 9.0, 1.6
"""Dots become smaller from protocol to protocol, so that those in the same place are all seen."""

Dots = dict[str, dict[str, float]]
"""By operation and protocol."""


def dots(values: Dots, title: str) -> Figure:
    """One line for each operation; the more the last protocol takes off the first one, the further up."""
    names = sorted(values, key=lambda name: _saved(list(values[name].values())))
    figure, (panel,) = panels(1, height=0.9 + 0.24 * len(names))
    for place, name in enumerate(names):
        ends = list(values[name].values())
        panel.plot([min(ends), max(ends)], [place, place], color=OTHER, linewidth=1.2, zorder=0)
    protocols = list(dict.fromkeys(protocol for found in values.values() for protocol in found))
    for number, protocol in enumerate(protocols):
        points = [(values[name][protocol], place) for place, name in enumerate(names) if protocol in values[name]]
        color, size = COLORS.get(protocol, "#000000"), max(3.0, LARGEST - STEP * number)
        panel.plot(*zip(*points, strict=True), "o", color=color, markersize=size, label=protocol)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_yticks(range(len(names)), names)
    panel.set_xlabel(title)
    panel.grid(True, axis="x")
    figure.legend(loc="outside upper center", ncols=6, handletextpad=0.2)
    return figure


def _saved(found: list[float]) -> float:
    return found[0] / found[-1]
