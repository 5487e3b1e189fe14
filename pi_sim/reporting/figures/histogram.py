"""Pre-activations: how the inputs of the activations are distributed, one panel for every layer."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pi_sim.records import JsonObject
from pi_sim.reporting.figures.style import ACTIVATION, grid

CAPTION = "Inputs of the activations, by layer; the share below zero is what a ReLU would make zeros."
ACROSS = 4


def by_layer(record: JsonObject) -> Figure:
    """Densities, each from -reach to reach."""
    histograms = record["histograms"]
    figure, axes = grid(len(histograms), ACROSS, height=1.5)
    for panel, each in zip(axes, histograms, strict=True):
        _density(panel, each)
    return figure


def _density(panel: Axes, histogram: JsonObject) -> None:
    """Bins darker below zero."""
    edges = np.linspace(-histogram["reach"], histogram["reach"], len(histogram["counts"]) + 1)
    panel.stairs(histogram["counts"], edges, fill=True, color=ACTIVATION["gelu"], alpha=0.7)
    panel.axvline(0, color="#444444", linewidth=0.8)
    panel.set_yticks([])
    panel.set_title(f"layer {histogram['layer']}: {histogram['negative']:.0%} below zero", fontsize=8)
