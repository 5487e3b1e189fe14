"""What layers learned: alpha of DyT and Derf against the spread of its input, and the slopes of leaky ReLUs."""

from matplotlib.figure import Figure

from pi_sim.records import JsonObject
from pi_sim.reporting.figures import style
from pi_sim.reporting.figures.style import ACTIVATION, panels
from pi_sim.zoo.anatomy import before_attention, layer

ALPHAS = "alpha against 1 / std of its input, which it follows (arXiv 2503.10622); on the dashed line they are equal."
SLOPES = "The learned slope for negative inputs, by layer."
KINDS = {"attention": "o", "FFN": "s", "final": "D"}


def alphas(record: JsonObject) -> Figure:
    """One point for every DyT or Derf with a finite input."""
    figure, (panel,) = panels(1, height=2.8)
    found = [each for each in record["alphas"] if each["inverse_std"] is not None and each["alpha"] is not None]
    for kind, shape in KINDS.items():
        chosen = [each for each in found if _kind(each["module"]) == kind]
        x, y = [each["inverse_std"] for each in chosen], [each["alpha"] for each in chosen]
        panel.plot(x, y, shape, label=kind, markersize=5)
    panel.axline((1, 1), slope=1, color="#888888", linestyle="--", linewidth=1)
    panel.set(xscale="log", yscale="log", xlabel="1 / std of the input", ylabel="alpha")
    panel.grid(True)
    figure.legend(loc="outside right center")
    return figure


def slopes(record: JsonObject) -> Figure:
    """One line over the layers."""
    figure, (panel,) = panels(1, height=2.2)
    values = [float("nan") if slope is None else slope for slope in record["slopes"]]
    panel.plot(range(len(values)), values, marker="o", color=ACTIVATION["relu"])
    panel.set_ylabel("slope")
    style.by_layer(panel)
    return figure


def _kind(module: str) -> str:
    """Which norm it stands for."""
    if layer(module) is None:
        return "final"
    return "attention" if before_attention(module) else "FFN"
