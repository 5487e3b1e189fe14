"""Activation sparsity: exact zeros in front of the matrices, by layer."""

from matplotlib.figure import Figure

from pi_sim.records import JsonObject
from pi_sim.reporting.figures import style
from pi_sim.reporting.figures.style import panels

CAPTION = "Exact zeros in the inputs of the QKV, up and down projections. Under MPC they save nothing: they are secret."
COLORS = {"qkv": "#0072B2", "up": "#009E73", "down": "#D55E00"}


def by_layer(record: JsonObject) -> Figure:
    """One line for each kind of projection."""
    figure, (panel,) = panels(1, height=2.4)
    for role, shares in record["sparsity"].items():
        values = [float("nan") if share is None else 100 * share for share in shares]
        panel.plot(range(len(values)), values, marker="o", markersize=4, label=role, color=COLORS[role])
    panel.set_ylim(-3, 103)
    panel.set_ylabel("zeros, %")
    style.by_layer(panel)
    figure.legend(loc="outside right center")
    return figure
