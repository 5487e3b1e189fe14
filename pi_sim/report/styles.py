"""The style of every figure, and SVG whose bytes depend on the data alone."""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, LEMON, BLACK = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"),
)
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
    text = io.StringIO()
    with _style():
        draw().savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": "pi-sim"})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def png(draw: Callable[[], Figure]) -> bytes:
    """Draw a figure as PNG."""
    content = io.BytesIO()
    with _style():
        draw().savefig(content, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": "pi-sim"})
    return content.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Set our style, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def panels(count: int, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """Make a white figure with panels side by side."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    return figure, list(figure.subplots(1, count, squeeze=False, **shared)[0])


def panel_grid(count: int, across: int, height: float) -> tuple[Figure, list[Axes]]:
    """Make a white figure with `count` panels, row by row, each row `height` inches high."""
    columns, rows = min(count, across), math.ceil(count / across)
    width = WIDTH * max(columns, 2) / across
    figure = Figure(figsize=(width, height * rows), layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in axes[count:]:
        panel.remove()
    return figure, axes[:count]


def label_layers(panel: Axes) -> None:
    """Put whole layers on the x axis, and a grid."""
    panel.set_xlabel("layer")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(True)
