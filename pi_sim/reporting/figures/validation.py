"""Ours against published, one panel for bytes and one for rounds, both axes logarithmic."""

from collections.abc import Iterator
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pi_sim.reporting.figures.style import panels
from pi_sim.validation.comparison import Comparison
from pi_sim.validation.validate import Validation

COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
SHAPES = "osD^v<>"
MISSED = "x"
Look = dict[str, str]


def scatter(validations: list[Validation]) -> Figure:
    """Two panels; a publication keeps its colour and shape in both."""
    figure, (sent, rounds) = panels(2, height=4.0)
    looks = dict(_looks(validations))
    for panel, quantities in ((sent, ("bytes", "offline")), (rounds, ("rounds",))):
        points = [(each.name, point) for each in validations for point in each.comparisons]
        _draw(panel, [(looks[name], point) for name, point in points if point.quantity in quantities])
    sent.set_title("bytes, online and offline")
    rounds.set_title("rounds")
    sent.set_ylabel("ours")
    handles = [Line2D([], [], linestyle="", label=name, **look) for name, look in looks.items()]  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, handletextpad=0.2)
    return figure


def _looks(validations: list[Validation]) -> Iterator[tuple[str, Look]]:
    """A colour and a shape for every publication."""
    for each, color, marker in zip(validations, cycle(COLORS), cycle(SHAPES[:-1]), strict=False):
        yield each.name, {"color": color, "marker": marker}


def _draw(panel: Axes, points: list[tuple[Look, Comparison]]) -> None:
    """The points over the line on which they would all lie."""
    panel.set_xscale("log")
    panel.set_yscale("log")
    ends = [point.published * _scale(point) for _, point in points]
    panel.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#888888", linewidth=0.8, zorder=0)
    for look, point in points:
        marker = MISSED if point.verdict == "missed" else look["marker"]
        filled = look["color"] if point.claim.role == "check" else "white"
        place = point.published * _scale(point), point.ours * _scale(point)
        panel.plot(*place, linestyle="", marker=marker, color=look["color"], markerfacecolor=filled, markersize=5)
    panel.set_xlabel("published")
    panel.grid(True)


def _scale(point: Comparison) -> float:
    """Bytes for bytes, whatever unit was printed."""
    return point.claim.scale if point.quantity in ("bytes", "offline") else 1.0
