"""How large the numbers grow that a secure computation holds, layer by layer."""

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pi_sim.records import JsonObject
from pi_sim.reporting.figures import style
from pi_sim.reporting.figures.style import panels

CAPTION = "The largest magnitude of what secure kernels compute with, by layer."
SOFTMAX = ("score minus row maximum", "row maximum", "row sum of exponentials")
SHOWN = ("residual stream", *SOFTMAX, "variance", "mean square")
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "erf")


def by_layer(record: JsonObject) -> Figure:
    """One line for each quantity; where a layer has several, their largest."""
    figure, (panel,) = panels(1, height=2.6)
    for name, largest in lines(record).items():
        panel.plot(list(largest), list(largest.values()), marker="o", markersize=4, label=name)
    panel.set(yscale="log", ylabel="largest magnitude")
    style.by_layer(panel)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())
    figure.legend(loc="outside right center")
    return figure


def lines(record: JsonObject) -> dict[str, dict[int, float]]:
    """The finite magnitudes by quantity and layer."""
    found: dict[str, dict[int, float]] = {}
    for row in record["ranges"]:
        name = _name(row)
        if name and row["layer"] is not None and row["largest"]:
            layers = found.setdefault(name, {})
            layers[row["layer"]] = max(layers.get(row["layer"], 0.0), row["largest"])
    return found


def _name(row: JsonObject) -> str | None:
    if row["quantity"] in SHOWN:
        return str(row["quantity"])
    return f"input of {row['op']}" if row["op"] in ACTIVATIONS else None
