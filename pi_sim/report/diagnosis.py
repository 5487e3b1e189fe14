"""A diagnosis as tables, sentences and figures."""

import math
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from pi_sim import files, records
from pi_sim.diagnosis.entropy import COLLAPSE, OVERLOAD
from pi_sim.records import DiagnosisRecord
from pi_sim.records.models import Range, Sparsity
from pi_sim.report import figures, styles, tables
from pi_sim.report.figures import Drawing
from pi_sim.report.styles import panels
from pi_sim.report.tables import COUNT, SHARE, Cell, Column, Format, Table, Unit, tabulate
from pi_sim.zoo.modules import is_before_attention, layer_index


def render(record: DiagnosisRecord, style: Format) -> str:
    """Render the tables and what they come to; as CSV the table of layers alone."""
    if style == "json":
        return records.dumps(record).rstrip()
    if style == "csv":
        return tables.render(layer_table(record), "csv")
    outside = sorted({f"{row.op} by {row.kernel}" for row in record.ranges if row.in_domain is False})
    parts = {"layers": layer_table(record), "ranges": range_table(record), "outside": outside}
    values = {"record": record, "alphas": [row.model_dump() for row in record.alphas or ()]}
    limits = {"overload": OVERLOAD, "collapse": COLLAPSE}
    return tables.render_template("diagnosis.txt.j2", style, **values, **parts, **limits)


def layer_table(record: DiagnosisRecord) -> Table:
    """Build one row for each layer: entropy over its heads, as a share of the maximum, and what its inputs hold."""
    columns: dict[str, Any] = {"layer": ("layer", COUNT)}
    columns |= {f"entropy_{key}": (f"entropy\n{key}", SHARE) for key in ("mean", "min", "max")}
    columns |= {key: (f"heads in\n{key}", SHARE) for key in ("overload", "collapse")}
    columns |= {"nan": ("NaN", COUNT), "inf": ("inf", COUNT)}
    columns |= {f"zeros_{role}": (f"zeros\n{role}", SHARE) for role in Sparsity.model_fields}
    columns |= {"slope": ("slope", (Unit(0, "", 1, 4),))} if record.slopes else {}
    rows = []
    for number, shares in enumerate(record.entropy_share):
        heads = [share for share in shares if share is not None]
        entropy = (fmean(heads), min(heads), max(heads)) if heads else ("NaN",) * 3
        row = dict(zip(("layer", "entropy_mean", "entropy_min", "entropy_max"), (number, *entropy), strict=True))
        row |= {key: values[number] for part in (record.by_layer, record.non_finite) for key, values in part}
        row |= {f"zeros_{role}": zeros[number] for role, zeros in record.sparsity}
        rows.append({**row, "slope": record.slopes[number] if record.slopes else None})
    return tabulate(rows, columns)


def range_table(record: DiagnosisRecord) -> Table:
    """Build one row for each quantity of each operation: its extremes over all modules, and what they allow."""
    titles = ("operation", "quantity", "from", "to", "largest in", "overflow", "kernel")
    columns = [Column(title, title, COUNT if title in ("from", "to") else ()) for title in titles]
    groups: dict[tuple[str, str], list[Range]] = {}
    for row in record.ranges:
        groups.setdefault((row.op, row.quantity), []).append(row)
    lines: list[list[Cell]] = []
    for (op, quantity), rows in groups.items():
        lows, highs = np.array([(row.min, row.max) for row in rows], dtype=float).T  # NaN where not finite
        ends = ["inf or NaN" if math.isnan(end) else f"{end:.4g}" for end in (lows.min(), highs.max())]
        largest = max(rows, key=lambda row: math.inf if row.largest is None else row.largest).module
        low, high = rows[0].domain or (None, None)
        state = "holds" if all(row.in_domain for row in rows) else "LEFT"
        kernel = f"{rows[0].kernel}: {low:g} to {high:g} {state}" if rows[0].kernel else ""
        overflow = "no" if all(row.fits for row in rows) else "YES"
        lines.append([op, quantity, *ends, largest, overflow, kernel])
    return Table(columns, lines)


LETTERS = 15  # letters of a caption in an inch
QUANTITIES = (
    *("residual stream", "score minus row maximum", "row maximum", "row sum of exponentials"),
    *("variance", "mean square"),
)
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "erf")


CAPTIONS = {
    "entropy": "Mean entropy of every attention head as a share of its maximum: 1 is uniform attention, 0 attends to "
    "one position. Layers from top to bottom; grey is NaN.",
    "sparsity": "Exact zeros in the inputs of the QKV, up and down projections. Under MPC they save nothing: they are "
    "secret.",
    "pre-activations": "Inputs of the activations, by layer; the share below zero is what a ReLU would make zeros.",
    "ranges": "The largest magnitude of what secure kernels compute with, by layer.",
    "alphas": "alpha against 1 / std of its input, which it follows (arXiv 2503.10622); on the dashed line they are "
    "equal.",
    "slopes": "The learned slope for negative inputs, by layer.",
}


def write_figures(record: DiagnosisRecord, folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG, all of them drawn before the first is written."""
    contents: dict[Path, bytes] = {}
    for name, figure in draw(record):
        contents[folder / f"{name}.svg"] = styles.svg(figure).encode()
        contents[folder / f"{name}.png"] = styles.png(figure)
    for path, content in contents.items():
        files.write_bytes(path, content)
    return list(contents)


def draw(record: DiagnosisRecord) -> Iterator[tuple[str, Drawing]]:
    """Yield the name and a function that draws it, caption included, of every figure that there are data for."""
    for name, data, figure in (
        ("entropy", record.entropy_share, partial(figures.heat_maps, [(record.model, record.entropy_share)])),
        ("sparsity", record.sparsity, partial(sparsity_by_layer, record)),
        ("pre-activations", record.histograms, partial(histograms, record)),
        ("ranges", largest_magnitudes(record), partial(ranges, record)),
        ("alphas", record.alphas, partial(alpha_scatter, record)),
        ("slopes", record.slopes, partial(slopes_by_layer, record)),
    ):
        if data:
            yield name, partial(_add_caption, CAPTIONS[name], figure)


def _add_caption(caption: str, draw_figure: Drawing) -> Figure:
    figure = draw_figure()
    figure.supxlabel(textwrap.fill(caption, int(LETTERS * figure.get_figwidth())), fontsize=8)
    return figure


def sparsity_by_layer(record: DiagnosisRecord) -> Figure:
    """Draw one line for each kind of projection."""
    lines = {role: {n: math.nan if x is None else 100 * x for n, x in enumerate(row)} for role, row in record.sparsity}
    figure = _lines(lines, 2.4, styles.PROJECTIONS, ylabel="zeros, %", ylim=(-3, 103))
    figure.legend(loc="outside right center")
    return figure


def ranges(record: DiagnosisRecord) -> Figure:
    """Draw one line for each quantity."""
    figure = _lines(largest_magnitudes(record), 2.6, {}, yscale="log", ylabel="largest magnitude")
    axis = figure.axes[0].yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
    figure.legend(loc="outside right center")
    return figure


def _lines(
    lines: dict[str, dict[int, float]], height: float, colors: dict[str, str], markersize: int = 4, **axes: Any
) -> Figure:
    """Draw one line over the layers for each name."""
    figure, (panel,) = panels(1, height=height)
    for name, values in lines.items():
        color: dict[str, Any] = {"color": colors[name]} if name in colors else {}
        panel.plot(list(values), list(values.values()), marker="o", markersize=markersize, label=name, **color)
    panel.set(xlabel="layer", **axes)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def histograms(record: DiagnosisRecord) -> Figure:
    """Draw a density for each layer, from -reach to reach."""
    figure, axes = panels(len(record.histograms), height=1.5, across=figures.ACROSS, grid=None)
    for panel, histogram in zip(axes, record.histograms, strict=True):
        edges = np.linspace(-histogram.reach, histogram.reach, len(histogram.counts) + 1)
        panel.stairs(histogram.counts, edges, fill=True, color=styles.BLUE, alpha=0.7)
        panel.axvline(0, color=styles.INK, linewidth=0.8)
        panel.set_yticks([])
        panel.set_title(f"layer {histogram.layer}: {histogram.negative:.0%} below zero", fontsize=8)
    return figure


def largest_magnitudes(record: DiagnosisRecord) -> dict[str, dict[int, float]]:
    """Return the finite magnitudes by quantity and layer; where a layer has several, their largest."""
    magnitudes: dict[str, dict[int, float]] = {}
    for row in record.ranges:
        name = row.quantity if row.quantity in QUANTITIES else f"input of {row.op}" if row.op in ACTIVATIONS else None
        if name and row.layer is not None and row.largest:
            layers = magnitudes.setdefault(name, {})
            layers[row.layer] = max(layers.get(row.layer, 0.0), row.largest)
    return magnitudes


def alpha_scatter(record: DiagnosisRecord) -> Figure:
    """Draw one point for every DyT or Derf with a finite input."""
    figure, (panel,) = panels(1, height=2.8)
    points: dict[str, list[tuple[float, float]]] = {"attention": [], "FFN": [], "final": []}
    for row in record.alphas or ():
        if row.inverse_std is not None and row.alpha is not None:
            block = "attention" if is_before_attention(row.module) else "FFN"
            kind = "final" if layer_index(row.module) is None else block
            points[kind].append((row.inverse_std, row.alpha))
    for (kind, pairs), shape in zip(points.items(), "osD", strict=True):
        panel.plot([x for x, _ in pairs], [y for _, y in pairs], shape, label=kind, markersize=5)
    panel.axline((1, 1), slope=1, color=styles.GUIDE, linestyle="--", linewidth=1)
    panel.set(xscale="log", yscale="log", xlabel="1 / std of the input", ylabel="alpha")
    figure.legend(loc="outside right center")
    return figure


def slopes_by_layer(record: DiagnosisRecord) -> Figure:
    """Draw one line over the layers."""
    slopes = {layer: math.nan if slope is None else slope for layer, slope in enumerate(record.slopes or ())}
    return _lines({"slope": slopes}, 2.2, {"slope": styles.ORANGE}, markersize=6, ylabel="slope")
