"""Every figure, drawn from frames and records: the same data give the same bytes."""

import math
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pi_sim.records import RunRecord
from pi_sim.report import styles
from pi_sim.report.statistics import Curve, Seeds, smooth_excess
from pi_sim.report.styles import Look, panels
from pi_sim.report.tables import SECONDS, choose_unit

if TYPE_CHECKING:
    import pandas as pd

    from pi_sim.report.sweep import DesignComparison

Drawing = Callable[[], Figure]
Matrix = Sequence[Sequence[float | None]]
MILLION = 1e6
ACROSS = 4  # small panels in a row

SLIVER = 0.02  # of the longest bar, in bytes and in rounds: smaller operations are drawn as part of the others
ALWAYS_SHOWN = "layernorm"  # the page's topic is drawn however small it is


def stacked_bars(sent: "pd.DataFrame", rounds: "pd.DataFrame", unit: str, divisor: float) -> Figure:
    """Draw bytes and rounds as two panels of bars: a row for each run, a column for each operation.

    Operations that are a sliver of both are drawn together.
    """
    costs, ops = (sent, rounds), sorted(sent.columns)
    large = {op for frame in costs for op in ops if frame[op].max() >= SLIVER * frame.sum(axis=1).max()}
    visible = [op for op in styles.OPERATIONS if op in ops and (op == ALWAYS_SHOWN or op in large)]
    parts = {op: (styles.OPERATIONS[op], [op]) for op in visible}
    if rest := [op for op in ops if op not in visible]:
        parts["other"] = (styles.OTHER, rest)
    figure, axes = panels(2, height=0.8 + 0.36 * len(sent), grid=None, sharey=True)
    for panel, frame, scale in zip(axes, costs, (divisor, 1), strict=True):
        left = [0.0] * len(frame)
        for label, (color, names) in parts.items():
            widths = [int(total) / scale for total in frame[names].sum(axis=1)]
            panel.barh(range(len(frame)), widths, left=left, height=0.66, color=color, label=label)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for row, end in enumerate(left):
            panel.text(end + 0.01 * max(left), row, f"{end:,.0f}", va="center", color=styles.INK)
        panel.set_xlim(0, 1.18 * max(left))
    axes[0].set_yticks(range(len(sent)), list(sent.index))
    axes[0].invert_yaxis()
    axes[0].set(xlabel=f"sent by one party, {unit}")
    axes[1].set(xlabel="rounds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=9, columnspacing=1.2)
    return figure


WRONG = "X"  # the marker of a run whose private result is wrong


def tradeoff(
    runs: list[RunRecord], perplexities: dict[str, Seeds], looks: dict[str, Look], protocols: list[str]
) -> Figure:
    """Draw perplexity against predicted seconds, one panel for each network; models that come first lie on top."""
    figure, axes = panels(2, height=3.2, ylabel="held-out perplexity", sharey=True)
    shapes = {protocol: styles.SHAPES[index % len(styles.SHAPES)] for index, protocol in enumerate(protocols)}
    pairs = [(run, WRONG if run.is_wrong else shapes[run.protocol]) for run in runs]
    for panel, network in zip(axes, ("wan", "lan"), strict=True):
        shown = [(run, shape) for run, shape in pairs if network in run.total.seconds]
        unit = choose_unit(SECONDS, [run.total.seconds[network] for run, _ in shown])
        for run, shape in reversed(shown):
            marker, seeds = looks[run.model].marker(shape), perplexities[run.model]
            seconds = run.total.seconds[network] / unit.divisor
            panel.vlines(seconds, min(seeds.values), max(seeds.values), color=marker["color"], linewidth=1)
            panel.plot(seconds, seeds.mean, **marker)
        panel.set(title=network, xlabel=f"predicted network time, {unit.name}")
        panel.margins(x=0.15)
    # At least a tenth of the perplexity's size is shown, so that small differences look small.
    values = [value for run in runs for value in perplexities[run.model].values]
    middle, reach = (min(values) + max(values)) / 2, 0.75 * (max(values) - min(values))
    reach = max(reach, 0.05 * middle)
    axes[0].set_ylim(middle - reach, middle + reach)
    used = {shape for _, shape in pairs}
    legend = {name: shape for name, shape in {**shapes, "private result wrong": WRONG}.items() if shape in used}
    keys = {model: looks[model].marker() for model in dict.fromkeys(run.model for run in runs)}
    if len(legend) > 1:
        keys |= {name: {"marker": shape, "color": styles.OTHER} for name, shape in legend.items()}
    handles = [Line2D([], [], linestyle="", label=label, **marker) for label, marker in keys.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, handletextpad=0.2)
    return figure


ACTIVATION_NAMES = {"gelu": "GELU", "relu": "ReLU"}


def quality_against_cost(costs: dict[str, dict[str, Any]], quality: dict[str, tuple[Look, Seeds]]) -> Figure:
    """Draw perplexity against seconds, one panel for each title in costs, with a label beside each design."""
    figure, axes = panels(len(costs), height=3.0, ylabel="held-out perplexity", sharey=True)
    for panel, (title, seconds) in zip(axes, costs.items(), strict=True):
        for model, x in seconds.items():
            look, seeds = quality[model]
            panel.vlines(x, min(seeds.values), max(seeds.values), color=look.color, linewidth=1)
            panel.plot(x, seeds.mean, **look.marker(), linestyle="")
            label = f"{ACTIVATION_NAMES[look.activation]}, {'LayerNorm' if look.norms else 'no norms'}"
            offset = (0, 9 if look.activation == "gelu" else -15)
            panel.annotate(label, (x, seeds.mean), offset, textcoords="offset points", ha="center", color=look.color)
        panel.set(title=title, xlabel="predicted network time on a WAN, s")
        panel.margins(x=0.35, y=0.2)
    return figure


SIDES: tuple[dict[str, Any], ...] = ({"xytext": (5, 4)}, {"xytext": (-4, -9), "ha": "right"})
"""Names stand by turns above and below the front, so that those of close designs do not overlap."""


def pareto_fronts(comparison: "DesignComparison") -> Figure:
    """Draw every design from its best seed to its worst, and the front with names, one panel for each network."""
    figure, axes = panels(len(comparison.networks), height=2.8, across=2, ylabel="perplexity")
    for panel, (network, seconds) in zip(axes, comparison.networks.items(), strict=True):
        front, unit = comparison.front(network), choose_unit(SECONDS, list(seconds.values()))
        points = {model: (seconds[model] / unit.divisor, comparison.designs[model].mean) for model in seconds}
        for model, (x, y) in points.items():
            color, values = styles.BLUE if model in front else styles.OTHER, comparison.designs[model].values
            panel.vlines(x, min(values), max(values), color=color, linewidth=1)
            panel.plot(x, y, "o", color=color, markersize=5)
        steps = zip(*(points[model] for model in front), strict=True)
        panel.step(*steps, where="post", color=styles.BLUE, linewidth=1.1)
        for model, side in zip(front, cycle(SIDES), strict=False):
            panel.annotate(model, points[model], textcoords="offset points", fontsize=7, **side)
        panel.set(title=network, xlabel=unit.name)
        panel.margins(x=0.4, y=0.2)
    return figure


def dots_by_protocol(values: dict[str, dict[str, float]], title: str) -> Figure:
    """Draw a dot for each protocol on a logarithmic axis, a line for each operation, the largest saving on top."""
    amounts = {name: list(by_protocol.values()) for name, by_protocol in values.items()}
    names = sorted(values, key=lambda name: amounts[name][0] / amounts[name][-1])
    figure, (panel,) = panels(1, height=0.9 + 0.24 * len(names), grid="x")
    for row, name in enumerate(names):
        panel.plot([min(amounts[name]), max(amounts[name])], [row, row], color=styles.OTHER, linewidth=1.2, zorder=0)
    protocols = dict.fromkeys(protocol for by_protocol in values.values() for protocol in by_protocol)
    for number, protocol in enumerate(protocols):
        points = [(values[name][protocol], row) for row, name in enumerate(names) if protocol in values[name]]
        # Dots become smaller from protocol to protocol, so that overlapping ones are all visible.
        color, size = styles.PROTOCOLS.get(protocol, styles.BLACK), max(3.0, 9.0 - 1.6 * number)
        panel.plot(*zip(*points, strict=True), "o", color=color, markersize=size, label=protocol)
    panel.set(xscale="log", xlabel=title)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_yticks(range(len(names)), names)
    figure.legend(loc="outside upper center", ncols=6, handletextpad=0.2)
    return figure


def published_scatter(figures: "pd.DataFrame") -> Figure:
    """Draw our figures against published ones, both axes logarithmic, and the identity line.

    Hollow where the figure was fitted, a cross where it was missed.
    """
    figure, axes = panels(2, height=4.0, ylabel="ours")
    names = list(dict.fromkeys(figures["source"]))
    looks = dict(zip(names, zip(cycle(styles.PUBLICATIONS), cycle(styles.SHAPES[:-1]), strict=False), strict=False))
    for panel, quantities in zip(axes, (["bytes", "offline"], ["rounds"]), strict=True):
        rows = figures[figures["figure"].isin(quantities)]
        panel.set(xscale="log", yscale="log", xlabel="published")
        ends = [min(rows["published_size"]), max(rows["published_size"])]
        panel.plot(ends, ends, color=styles.GUIDE, linewidth=0.8, zorder=0)
        for row in rows.to_dict("records"):
            color, shape = looks[row["source"]]
            face, marker = color if row["role"] == "check" else "white", "x" if row["verdict"] == "missed" else shape
            look = {"marker": marker, "color": color, "markerfacecolor": face, "markersize": 5}
            panel.plot(row["published_size"], row["ours_size"], linestyle="", **look)
    axes[0].set(title="bytes, online and offline")
    axes[1].set(title="rounds")
    handles = [Line2D([], [], linestyle="", label=n, color=color, marker=shape) for n, (color, shape) in looks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, handletextpad=0.2)
    return figure


def dot_plot(designs: dict[str, tuple[list[float], float | None]]) -> Figure:
    """Draw the changes of each design: a dot for each seed, a bar for the mean, a diamond for the published one."""
    figure, (panel,) = panels(1, height=0.9 + 0.3 * len(designs), grid="x")
    for row, (changes, published) in enumerate(designs.values()):
        percents = [100 * change for change in changes]
        panel.plot(percents, [row] * len(percents), "o", color=styles.BLUE, markersize=4)
        if percents:
            panel.plot(sum(percents) / len(percents), row, "|", color=styles.BLUE, markersize=14)
        else:
            panel.text(1, row, "diverged", va="center", color=styles.INK)
        if published is not None:
            panel.plot(100 * published, row, "D", zorder=0, color=styles.ORANGE, markerfacecolor="white")
    panel.axvline(0, color=styles.GUIDE, linewidth=0.8)
    panel.set_yticks(range(len(designs)), list(designs))
    panel.invert_yaxis()
    panel.set_xlabel("perplexity against the first design, %")
    return figure


def loss_curves(curves: dict[str, Curve], looks: dict[str, Look]) -> Figure:
    """Draw the first model's loss, and the smoothed differences of the others, which would overlap otherwise."""
    (first, baseline), *rest = curves.items()
    figure, (left, right) = panels(2, height=2.8)
    left.plot(list(baseline), list(baseline.values()), **looks[first].line)
    left.set(xscale="log", xlabel="step", title=f"{first}: loss, nats per token")
    right.axhline(0, label=first, **looks[first].line)
    for model, curve in rest:
        shown = smooth_excess(curve, baseline)
        right.plot(list(shown), list(shown.values()), label=model, **looks[model].line)
    right.set(xlabel="step", title=f"above {first}, nats per token")
    right.legend()
    return figure


LayerSeries = tuple[str, list[int], list[list[float]]]
"""A title, the tokens of observations, and a quantity of each layer at them; NaN where it is not a number."""


def lines_by_layer(models: list[LayerSeries], label: str, top: float | None = None) -> Figure:
    """Draw a panel for each model, a line for each layer: early layers dark, late ones light; one scale up to `top`."""
    figure, axes = panels(len(models), height=1.9, across=ACROSS, ylabel=label)
    for panel, (title, tokens, layers) in zip(axes, models, strict=True):
        colors = colormaps["viridis"].resampled(len(layers) + 1)
        for layer, values in enumerate(layers):
            millions = [count / MILLION for count in tokens]
            panel.plot(millions, values, color=colors(layer), linewidth=1.2, label=f"layer {layer}")
        panel.set(title=title, xlabel="tokens, millions")
        if top is not None:
            panel.set_ylim(0, 1.03 * top)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


class Recovery(NamedTuple):
    """A conversion: perplexity before it, and by tokens of fine-tuning; that at 0 tokens may be missing."""

    label: str
    before: float
    perplexities: dict[int, float]


def recoveries(conversions: list[Recovery]) -> Figure:
    """Draw one line for each conversion, and each source's own perplexity once."""
    figure, (panel,) = panels(1, height=3.0)
    for color, (label, _, perplexities) in zip(cycle(styles.CONVERSIONS), conversions, strict=False):
        millions = [tokens / MILLION for tokens in perplexities]
        panel.plot(millions, list(perplexities.values()), color=color, label=label)
        if 0 in perplexities:
            panel.plot(0, perplexities[0], "o", color=color, markersize=4)
    for before in {conversion.before for conversion in conversions}:
        panel.axhline(before, color=styles.GUIDE, linestyle="--", linewidth=0.9)
    panel.set(yscale="log", xlabel="tokens of fine-tuning, millions", ylabel="held-out perplexity")
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_minor_formatter("{x:,.0f}")
    panel.grid(True, which="both")
    figure.legend(loc="outside right center")
    return figure


LEGIBLE = 48  # a heat map of at most this many cells shows their numbers
TICKS = 8  # ticks along an axis, at most


def heat_maps(models: Sequence[tuple[str, Matrix]]) -> Figure:
    """Draw entropy shares, layers downwards and heads to the right, one map for each title, all in the same colours."""
    tallest = max(len(matrix) for _, matrix in models)
    figure, axes = panels(len(models), min(0.9 + 0.3 * tallest, 4.0), across=ACROSS, ylabel="layer", grid=None)
    colors = colormaps["viridis"].with_extremes(bad=styles.OTHER)
    for panel, (title, matrix) in zip(axes, models, strict=True):
        shares = np.array(matrix, dtype=float)
        image = panel.imshow(shares, vmin=0, vmax=1, cmap=colors, aspect="auto")
        panel.set(title=title, xlabel="head")
        for axis, count in ((panel.xaxis, shares.shape[1]), (panel.yaxis, shares.shape[0])):
            axis.set_ticks(range(0, count, math.ceil(count / TICKS)))
        for (layer, head), share in np.ndenumerate(shares) if shares.size <= LEGIBLE else ():
            number = "NaN" if math.isnan(share) else f"{share:.2f}"
            ink = "black" if share > 0.6 or math.isnan(share) else "white"
            panel.text(head, layer, number, ha="center", va="center", fontsize=7, color=ink)
    figure.colorbar(image, ax=axes, label="entropy / maximum", shrink=0.9)
    return figure
