"""Every figure, drawn from frames and records: the same data give the same bytes."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from pi_sim.report import styles
from pi_sim.report.statistics import Curve, Seeds, above, running_mean, without_start
from pi_sim.report.styles import Look, panel_grid, panels
from pi_sim.report.tables import SECONDS, choose_unit

if TYPE_CHECKING:
    import pandas as pd

    from pi_sim.report.sweep import DesignComparison

Drawing = Callable[[], Figure]
Matrix = Sequence[Sequence[float | None]]
MILLION = 1e6
ACROSS = 4
"""Small panels in a row."""


SLIVER = 0.02
"""An operation below this share of the longest bar, in bytes and in rounds, is drawn as part of the others."""
ALWAYS_SHOWN = "layernorm"
"""The page's topic is drawn however small it is."""


def stacked_bars(sent: "pd.DataFrame", rounds: "pd.DataFrame", unit: str, divisor: float) -> Figure:
    """Draw bytes and rounds as two panels of bars: a row for each run, a column for each operation."""
    parts = list(_bar_parts(sent, rounds))
    figure, (left, right) = panels(2, height=0.8 + 0.36 * len(sent), sharey=True)
    _bars(left, sent, parts, divisor)
    _bars(right, rounds, parts, 1)
    left.set_yticks(range(len(sent)), list(sent.index))
    left.invert_yaxis()
    left.set(xlabel=f"sent by one party, {unit}")
    right.set(xlabel="rounds")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=9, columnspacing=1.2)
    return figure


def _bars(panel: Axes, costs: "pd.DataFrame", parts: list[tuple[str, str, list[str]]], divisor: float) -> None:
    """Stack the parts, and write each bar's sum at its end."""
    left = [0.0] * len(costs)
    for label, color, ops in parts:
        widths = [int(total) / divisor for total in costs[ops].sum(axis=1)]
        panel.barh(range(len(costs)), widths, left=left, height=0.66, color=color, label=label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, end in enumerate(left):
        panel.text(end + 0.01 * max(left), row, f"{end:,.0f}", va="center", color=styles.INK)
    panel.set_xlim(0, 1.18 * max(left))


def _bar_parts(*costs: "pd.DataFrame") -> Iterator[tuple[str, str, list[str]]]:
    """Yield label, colour and operations of each part: the visible operations, then all others together."""
    ops = sorted(costs[0].columns)
    large = {op for frame in costs for op in ops if frame[op].max() >= SLIVER * frame.sum(axis=1).max()}
    visible = [op for op in styles.OPERATIONS if op in ops and (op == ALWAYS_SHOWN or op in large)]
    yield from ((op, styles.OPERATIONS[op], [op]) for op in visible)
    rest = [op for op in ops if op not in visible]
    if rest:
        yield "other", styles.OTHER, rest


WRONG = "X"
"""The marker of a run whose private result is wrong."""


class Point(NamedTuple):
    """A model under a protocol: perplexity by seed, and seconds by network."""

    model: str
    protocol: str
    wrong: bool
    perplexity: Seeds
    seconds: dict[str, float]


def tradeoff(points: list[Point], looks: dict[str, Look], protocols: list[str]) -> Figure:
    """Draw perplexity against predicted seconds, one panel for each network."""
    figure, axes = panels(2, height=3.2, sharey=True)
    shapes = {protocol: styles.SHAPES[index % len(styles.SHAPES)] for index, protocol in enumerate(protocols)}
    markers = [WRONG if point.wrong else shapes[point.protocol] for point in points]
    for panel, network in zip(axes, ("wan", "lan"), strict=True):
        _tradeoff_panel(panel, points, markers, looks, network)
    axes[0].set_ylabel("held-out perplexity")
    _widen(axes[0], [value for point in points for value in point.perplexity.values])
    legend = {name: shape for name, shape in shapes.items() if shape in markers}
    legend |= {"private result wrong": WRONG} if WRONG in markers else {}
    handles = [_legend_key(model, looks[model].marker()) for model in dict.fromkeys(point.model for point in points)]
    if len(legend) > 1:
        handles += [_legend_key(name, {"marker": shape, "color": styles.OTHER}) for name, shape in legend.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, handletextpad=0.2)
    return figure


def _tradeoff_panel(panel: Axes, points: list[Point], markers: list[str], looks: dict[str, Look], network: str) -> None:
    """Draw one network's points; models that come first lie on top."""
    shown = [(point, shape) for point, shape in zip(points, markers, strict=True) if network in point.seconds]
    unit = choose_unit(SECONDS, [point.seconds[network] for point, _ in shown])
    for point, shape in reversed(shown):
        marker = looks[point.model].marker(shape)
        seconds, values = point.seconds[network] / unit.divisor, point.perplexity.values
        panel.vlines(seconds, min(values), max(values), color=marker["color"], linewidth=1)
        panel.plot(seconds, point.perplexity.mean, **marker)
    panel.set(title=network, xlabel=f"predicted network time, {unit.name}")
    panel.margins(x=0.15)
    panel.grid(True)


def _legend_key(label: str, marker: dict[str, Any]) -> Line2D:
    return Line2D([], [], linestyle="", label=label, **marker)


def _widen(panel: Axes, values: list[float]) -> None:
    """Show at least a tenth of the perplexity's size, so that small differences look small."""
    middle, span = (min(values) + max(values)) / 2, max(values) - min(values)
    reach = max(0.75 * span, 0.05 * middle)
    panel.set_ylim(middle - reach, middle + reach)


SIDES: tuple[dict[str, Any], ...] = ({"xytext": (5, 4)}, {"xytext": (-4, -9), "ha": "right"})
"""Names stand by turns above and below the front, so that those of close designs do not overlap."""


def pareto_fronts(comparison: "DesignComparison") -> Figure:
    """Draw perplexity against seconds and the Pareto front, one panel for each network."""
    figure, axes = panel_grid(len(comparison.networks), 2, height=2.8)
    for index, (panel, network) in enumerate(zip(axes, comparison.networks, strict=True)):
        _pareto_panel(panel, comparison, network)
        if index % 2 == 0:
            panel.set_ylabel("perplexity")
    return figure


def _pareto_panel(panel: Axes, comparison: "DesignComparison", network: str) -> None:
    """Draw every design, from its best seed to its worst; the front in steps, with names."""
    seconds, front = comparison.networks[network], comparison.front(network)
    unit = choose_unit(SECONDS, list(seconds.values()))
    points = {model: (seconds[model] / unit.divisor, comparison.designs[model].mean) for model in seconds}
    for model, (x, y) in points.items():
        color, values = styles.BLUE if model in front else styles.OTHER, comparison.designs[model].values
        panel.vlines(x, min(values), max(values), color=color, linewidth=1)
        panel.plot(x, y, "o", color=color, markersize=5)
    panel.step(*zip(*(points[model] for model in front), strict=True), where="post", color=styles.BLUE, linewidth=1.1)
    for model, side in zip(front, cycle(SIDES), strict=False):
        panel.annotate(model, points[model], textcoords="offset points", fontsize=7, **side)
    panel.set(title=network, xlabel=unit.name)
    panel.margins(x=0.4, y=0.2)
    panel.grid(True)


def dots_by_protocol(values: dict[str, dict[str, float]], title: str) -> Figure:
    """Draw a dot for each protocol on a logarithmic axis, a line for each operation, the largest saving on top."""
    amounts = {name: list(by_protocol.values()) for name, by_protocol in values.items()}
    names = sorted(values, key=lambda name: amounts[name][0] / amounts[name][-1])
    figure, (panel,) = panels(1, height=0.9 + 0.24 * len(names))
    for row, name in enumerate(names):
        panel.plot([min(amounts[name]), max(amounts[name])], [row, row], color=styles.OTHER, linewidth=1.2, zorder=0)
    for number, protocol in enumerate(
        dict.fromkeys(protocol for by_protocol in values.values() for protocol in by_protocol)
    ):
        points = [(values[name][protocol], row) for row, name in enumerate(names) if protocol in values[name]]
        # Dots become smaller from protocol to protocol, so that overlapping ones are all visible.
        color, size = styles.PROTOCOLS.get(protocol, styles.BLACK), max(3.0, 9.0 - 1.6 * number)
        panel.plot(*zip(*points, strict=True), "o", color=color, markersize=size, label=protocol)
    panel.set(xscale="log", xlabel=title)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_yticks(range(len(names)), names)
    panel.grid(True, axis="x")
    figure.legend(loc="outside upper center", ncols=6, handletextpad=0.2)
    return figure


def published_scatter(figures: "pd.DataFrame") -> Figure:
    """Draw our figures against published ones, bytes and rounds, both axes logarithmic."""
    figure, (sent, rounds) = panels(2, height=4.0)
    names = list(dict.fromkeys(figures["source"]))
    looks = dict(zip(names, zip(cycle(styles.PUBLICATIONS), cycle(styles.SHAPES[:-1]), strict=False), strict=False))
    _scatter_panel(sent, figures[figures["figure"].isin(["bytes", "offline"])], looks)
    _scatter_panel(rounds, figures[figures["figure"] == "rounds"], looks)
    sent.set(title="bytes, online and offline", ylabel="ours")
    rounds.set(title="rounds")
    handles = [_legend_key(name, {"color": color, "marker": shape}) for name, (color, shape) in looks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, handletextpad=0.2)
    return figure


def _scatter_panel(panel: Axes, figures: "pd.DataFrame", looks: dict[str, tuple[str, str]]) -> None:
    """Draw the points and the identity line; hollow where the figure was fitted, a cross where it was missed."""
    panel.set(xscale="log", yscale="log", xlabel="published")
    ends = [min(figures["published_size"]), max(figures["published_size"])]
    panel.plot(ends, ends, color=styles.GUIDE, linewidth=0.8, zorder=0)
    for row in figures.itertuples():
        color, shape = looks[str(row.source)]
        face = color if row.role == "check" else "white"
        marker = "x" if row.verdict == "missed" else shape
        point = row.published_size, row.ours_size
        panel.plot(*point, linestyle="", marker=marker, color=color, markerfacecolor=face, markersize=5)
    panel.grid(True)


def dot_plot(designs: dict[str, tuple[list[float], float | None]]) -> Figure:
    """Draw the changes of each design: a dot for each seed, a bar for the mean, a diamond for the published one."""
    figure, (panel,) = panels(1, height=0.9 + 0.3 * len(designs))
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
    panel.grid(True, axis="x")
    return figure


def loss_curves(curves: dict[str, Curve], looks: dict[str, Look]) -> Figure:
    """Draw the first model's loss, and the smoothed differences of the others, which would overlap otherwise."""
    (first, baseline), *others = curves.items()
    figure, (left, right) = panels(2, height=2.8)
    left.plot(list(baseline), list(baseline.values()), **looks[first].line)
    left.set(xscale="log", xlabel="step", title=f"{first}: loss, nats per token")
    right.axhline(0, label=first, **looks[first].line)
    for model, curve in others:
        shown = running_mean(without_start(above(curve, baseline)))
        right.plot(list(shown), list(shown.values()), label=model, **looks[model].line)
    right.set(xlabel="step", title=f"above {first}, nats per token")
    right.legend()
    left.grid(True)
    right.grid(True)
    return figure


class LayerSeries(NamedTuple):
    """A quantity of each layer along a training; NaN where it is not a number."""

    title: str
    tokens: list[int]
    layers: list[list[float]]


def lines_by_layer(models: list[LayerSeries], label: str, top: float | None = None) -> Figure:
    """Draw a panel for each model, a line for each layer: early layers dark, late ones light; one scale up to `top`."""
    figure, axes = panel_grid(len(models), ACROSS, height=1.9)
    for panel, series in zip(axes, models, strict=True):
        colors = colormaps["viridis"].resampled(len(series.layers) + 1)
        for layer, values in enumerate(series.layers):
            millions = [tokens / MILLION for tokens in series.tokens]
            panel.plot(millions, values, color=colors(layer), linewidth=1.2, label=f"layer {layer}")
        panel.set(title=series.title, xlabel="tokens, millions")
        panel.grid(True)
        if top is not None:
            panel.set_ylim(0, 1.03 * top)
    for panel in axes[::ACROSS]:
        panel.set_ylabel(label)
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


LEGIBLE = 48
"""A heat map of at most this many cells shows their numbers."""
TICKS = 8
"""Ticks along an axis, at most."""


def heat_maps(models: list[tuple[str, Matrix]]) -> Figure:
    """Draw entropy shares by layer and head, one map for each title, all in the same colours."""
    tallest = max(len(matrix) for _, matrix in models)
    figure, axes = panel_grid(len(models), ACROSS, height=min(0.9 + 0.3 * tallest, 4.0))
    for panel, (title, matrix) in zip(axes, models, strict=True):
        image = _heat_map(panel, np.array(matrix, dtype=float))
        panel.set_title(title)
    for panel in axes[::ACROSS]:
        panel.set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="entropy / maximum", shrink=0.9)
    return figure


def _heat_map(panel: Axes, shares: NDArray[np.float64]) -> AxesImage:
    """Draw layers downwards, heads to the right."""
    colors = colormaps["viridis"].with_extremes(bad=styles.OTHER)
    image = panel.imshow(shares, vmin=0, vmax=1, cmap=colors, aspect="auto")
    panel.set_xlabel("head")
    for axis, count in ((panel.xaxis, shares.shape[1]), (panel.yaxis, shares.shape[0])):
        axis.set_ticks(range(0, count, math.ceil(count / TICKS)))
    if shares.size <= LEGIBLE:
        for (layer, head), share in np.ndenumerate(shares):
            number = "NaN" if math.isnan(share) else f"{share:.2f}"
            ink = "black" if share > 0.6 or math.isnan(share) else "white"
            panel.text(head, layer, number, ha="center", va="center", fontsize=7, color=ink)
    return image
