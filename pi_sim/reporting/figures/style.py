"""How every figure looks: colours, lines and markers, and SVG that is the same for the same findings."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pi_sim.reporting.findings import Findings

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
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "grid.color": "#e6e6e6",
}
# Okabe and Ito's palette, which colour-blind readers can tell apart.
ACTIVATION = {"gelu": "#0072B2", "relu": "#D55E00"}
OTHER = "#BBBBBB"
WIDTH = 7.2
DPI = 160


def svg(figure: Callable[[], Figure]) -> str:
    """A figure as SVG without a date."""
    text = io.StringIO()
    with _styled():
        figure().savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": "pi-sim"})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def png(figure: Callable[[], Figure]) -> bytes:
    """A figure as PNG."""
    content = io.BytesIO()
    with _styled():
        figure().savefig(content, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": "pi-sim"})
    return content.getvalue()


@contextmanager
def _styled() -> Iterator[None]:
    """Our style, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def panels(count: int, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A white figure with panels side by side."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    return figure, list(figure.subplots(1, count, squeeze=False, **shared)[0])


def grid(count: int, across: int, height: float) -> tuple[Figure, list[Axes]]:
    """A white figure with so many panels, row by row of the same height in inches."""
    columns, rows = min(count, across), math.ceil(count / across)
    width = WIDTH * max(columns, 2) / across
    figure = Figure(figsize=(width, height * rows), layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in axes[count:]:
        panel.remove()
    return figure, axes[:count]


def by_layer(panel: Axes) -> None:
    """Whole layers from left to right, and a grid."""
    panel.set_xlabel("layer")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(True)


def line(findings: Findings, model: str) -> dict[str, Any]:
    """Solid with norms, dashed without."""
    color, norm = _look(findings, model)
    return {"color": color, "linestyle": "-" if norm else "--", "linewidth": 1.1}


def marker(findings: Findings, model: str, shape: str = "o") -> dict[str, Any]:
    """Filled with norms, hollow without."""
    color, norm = _look(findings, model)
    return {"marker": shape, "color": color, "markerfacecolor": color if norm else "white", "markersize": 7}


def _look(findings: Findings, model: str) -> tuple[str, bool]:
    """A model's colour, by its activation, and whether it has norms."""
    design = findings.architecture(model)
    return ACTIVATION.get(design.get("activation", ""), OTHER), design.get("norm") != "none"
