"""Along a training: one panel for each model, one line for each layer."""

from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.figure import Figure

from pi_sim.reporting.figures.style import grid

ACROSS = 4
MILLION = 1e6


@dataclass(frozen=True)
class Course:
    """A quantity of each layer at some points of a training; NaN where it is not a number."""

    title: str
    tokens: list[int]
    layers: list[list[float]]


def courses(models: list[Course], label: str, top: float | None = None) -> Figure:
    """Early layers dark, late ones light; one scale for all panels, up to `top` if there is a largest value."""
    figure, axes = grid(len(models), ACROSS, height=1.9)
    for panel, course in zip(axes, models, strict=True):
        colors = colormaps["viridis"].resampled(len(course.layers) + 1)
        for layer, values in enumerate(course.layers):
            millions = [tokens / MILLION for tokens in course.tokens]
            panel.plot(millions, values, color=colors(layer), linewidth=1.2, label=f"layer {layer}")
        panel.set_title(course.title)
        panel.set_xlabel("tokens, millions")
        panel.grid(True)
        if top is not None:
            panel.set_ylim(0, 1.03 * top)
    for panel in axes[::ACROSS]:
        panel.set_ylabel(label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure
