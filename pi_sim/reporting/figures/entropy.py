"""Attention entropy: one cell for every head, side by side for several models."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from pi_sim.reporting.figures.style import OTHER, grid

CAPTION = (
    "Mean entropy of every attention head as a share of its maximum: 1 looks everywhere alike, 0 at one place only. "
    "Layers from top to bottom; grey is not a number."
)
ACROSS = 4
"""Heat maps in a row."""
LEGIBLE = 48
"""Up to so many cells a heat map shows their numbers."""
TICKS = 8
"""Along an axis, at most."""

Matrix = list[list[float | None]]


def heat_maps(models: list[tuple[str, Matrix]]) -> Figure:
    """Titles and entropy shares by layer and head (`entropy_share` of a diagnosis), all in the same colours."""
    tallest = max(len(matrix) for _, matrix in models)
    figure, axes = grid(len(models), ACROSS, height=min(0.9 + 0.3 * tallest, 4.0))
    for panel, (title, matrix) in zip(axes, models, strict=True):
        image = _heat_map(panel, np.array(matrix, dtype=float))
        panel.set_title(title)
    for panel in axes[::ACROSS]:
        panel.set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="entropy / maximum", shrink=0.9)
    return figure


def _heat_map(panel: Axes, shares: NDArray[np.float64]) -> AxesImage:
    """Layers downwards, heads to the right."""
    colors = colormaps["viridis"].with_extremes(bad=OTHER)
    image = panel.imshow(shares, vmin=0, vmax=1, cmap=colors, aspect="auto")
    panel.set_xlabel("head")
    for axis, count in ((panel.xaxis, shares.shape[1]), (panel.yaxis, shares.shape[0])):
        axis.set_ticks(range(0, count, math.ceil(count / TICKS)))
    if shares.size <= LEGIBLE:
        for (layer, head), share in np.ndenumerate(shares):
            panel.text(head, layer, _two_digits(share), ha="center", va="center", fontsize=7, color=_ink(share))
    return image


def _two_digits(share: float) -> str:
    return "NaN" if math.isnan(share) else f"{share:.2f}"


def _ink(share: float) -> str:
    """Legible on the cell's colour."""
    return "black" if share > 0.6 or math.isnan(share) else "white"
