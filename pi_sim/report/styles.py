"""The style of every figure, and SVG whose bytes depend on the data alone."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, LEMON, BLACK = "#E69F00", "#56B4E9", "#F0E442", "#000000"
ACTIVATIONS = {"gelu": BLUE, "relu": ORANGE}
_OPERATIONS = ("softmax", "gelu", "relu", "layernorm", "linear", "matmul", "embedding", "multiply")
OPERATIONS = dict(zip(_OPERATIONS, (BLUE, YELLOW, ORANGE, GREEN, SKY, PINK, LEMON, BLACK), strict=True))
PROTOCOLS = {"crypten": BLUE, "crypten_tanh": SKY, "shaft": YELLOW, "lean": ORANGE}
PROJECTIONS = {"qkv": BLUE, "up": GREEN, "down": ORANGE}
CONVERSIONS = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY)
PUBLICATIONS = (BLUE, ORANGE, GREEN, YELLOW, PINK, SKY, BLACK)
SHAPES = "osD^v<>"
OTHER, GUIDE, INK = "#BBBBBB", "#888888", "#444444"
WIDTH = 7.2
DPI = 160


@dataclass(frozen=True)
class Look:
    """A design's look: a colour for its activation; hollow or dashed without norms."""

    activation: str
    norms: bool

    @property
    def color(self) -> str:
        """The activation's colour."""
        return ACTIVATIONS.get(self.activation, OTHER)

    @property
    def line(self) -> dict[str, Any]:
        """A line: solid with norms, dashed without."""
        return {"color": self.color, "linestyle": "-" if self.norms else "--", "linewidth": 1.1}

    def marker(self, shape: str = "o") -> dict[str, Any]:
        """Return a marker: filled with norms, hollow without."""
        face = self.color if self.norms else "white"
        return {"marker": shape, "color": self.color, "markerfacecolor": face, "markersize": 7}


def svg(draw: Callable[[], Figure]) -> str:
    """Draw a figure as SVG without a date."""
    text = _save(draw, format="svg", metadata={"Date": None, "Creator": "pi-sim"}).decode()
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def png(draw: Callable[[], Figure]) -> bytes:
    """Draw a figure as PNG."""
    return _save(draw, format="png", dpi=DPI, metadata={"Software": "pi-sim"})


def _save(draw: Callable[[], Figure], **settings: Any) -> bytes:
    """Draw a figure in our style, whatever the user's matplotlibrc says."""
    content = io.BytesIO()
    with style.context(["default", STYLE]):
        draw().savefig(content, bbox_inches="tight", **settings)
    return content.getvalue()


Grid = Literal["both", "x", None]


def panels(
    count: int, height: float, across: int | None = None, ylabel: str = "", grid: Grid = "both", **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Make a white figure with `count` panels side by side, or `across` in each row of `height` inches."""
    columns = min(count, across or count)
    rows, width = math.ceil(count / columns), WIDTH * max(columns, 2) / across if across else WIDTH
    figure = Figure(figsize=(width, height * rows), layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for panel in axes[count:]:
        panel.remove()
    for panel in axes[:count] if grid else ():
        panel.grid(True, axis=grid)
    for panel in axes[:count:columns]:
        panel.set_ylabel(ylabel)
    return figure, axes[:count]
