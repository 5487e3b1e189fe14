"""Relative changes of the perplexity: ours, seed by seed, beside what a paper printed."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from pi_sim.reporting.figures.style import ACTIVATION, panels

CAPTION = (
    "Perplexity against the first design's mean. Dots: our seeds; bar: their mean; hollow diamonds: the paper's "
    "change, at its own size and on its own text."
)


@dataclass(frozen=True)
class Change:
    """A design's changes, as shares of the reference; what diverged has none."""

    label: str
    ours: list[float]
    published: float | None


def changes(designs: list[Change]) -> Figure:
    """One line for each design, from top to bottom."""
    figure, (panel,) = panels(1, height=0.9 + 0.3 * len(designs))
    for place, design in enumerate(designs):
        ours = [100 * value for value in design.ours]
        panel.plot(ours, [place] * len(ours), "o", color=ACTIVATION["gelu"], markersize=4)
        if ours:
            panel.plot(sum(ours) / len(ours), place, "|", color=ACTIVATION["gelu"], markersize=14)
        else:
            panel.text(1, place, "diverged", va="center", color="#444444")
        if design.published is not None:
            color = ACTIVATION["relu"]
            panel.plot(100 * design.published, place, "D", zorder=0, color=color, markerfacecolor="white")
    panel.axvline(0, color="#888888", linewidth=0.8)
    panel.set_yticks(range(len(designs)), [design.label for design in designs])
    panel.invert_yaxis()
    panel.set_xlabel("perplexity against the first design, %")
    panel.grid(True, axis="x")
    return figure
