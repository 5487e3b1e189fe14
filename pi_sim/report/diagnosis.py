"""A diagnosis as tables, sentences and figures."""

import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pi_sim import files, records
from pi_sim.diagnosis.entropy import COLLAPSE, OVERLOAD
from pi_sim.records import DiagnosisRecord
from pi_sim.records.models import Histogram, Range, Sparsity
from pi_sim.report import figures, styles, tables
from pi_sim.report.styles import label_layers, panel_grid, panels
from pi_sim.report.tables import COUNT, SHARE, Cell, Column, Table, Unit
from pi_sim.zoo.anatomy import before_attention, layer

Format = Literal["table", "markdown", "csv", "json"]
FOUR_DECIMALS = (Unit(0, "", 1, 4),)
MENTIONED_FAILURES = 0.01
"""Expected failures of truncations in a sequence that are worth a sentence: one corrupts it."""


def render(record: DiagnosisRecord, style: Format) -> str:
    """Render the tables and what they come to; as CSV the table of layers alone."""
    if style == "json":
        return records.dumps(record)
    if style == "csv":
        return tables.render(layer_table(record), "csv")
    sentences = "\n".join(f"- {sentence}" for sentence in _sentences(record))
    if style == "markdown":
        parts = [layer_table(record, " "), alpha_table(record), _escape(range_table(record))]
        return "\n\n".join([f"### {_title(record)}", *_render_all(parts, style), sentences])
    parts = [layer_table(record), alpha_table(record), range_table(record)]
    return "\n".join([_title(record), *_render_all(parts, style), sentences])


def _render_all(parts: list[Table], style: tables.Style) -> list[str]:
    return [tables.render(table, style) for table in parts if table.rows]


def _escape(table: Table) -> Table:
    """Escape bars such as those of |input|, which would end a Markdown cell."""
    rows: list[list[Cell]] = [
        [cell.replace("|", "\\|") if isinstance(cell, str) else cell for cell in row] for row in table.rows
    ]
    return Table(table.columns, rows)


def _title(record: DiagnosisRecord) -> str:
    count = record.sequences
    tokens = f"{count} {record.text} sequence{'s' if count > 1 else ''} of {record.seq_len:,} tokens"
    return f"{record.model} ({record.size}), protocol {record.protocol}, {tokens}"


def layer_table(record: DiagnosisRecord, gap: str = "\n") -> Table:
    """Build one row for each layer: entropy over its heads, as a share of the maximum. `gap` parts words of titles."""
    columns = [
        Column("layer", "layer", COUNT),
        *(Column(f"entropy_{key}", f"entropy{gap}{key}", SHARE) for key in ("mean", "min", "max")),
        *(Column(key, f"heads in{gap}{key}", SHARE) for key in ("overload", "collapse")),
        *(Column(key, title, COUNT) for key, title in (("nan", "NaN"), ("inf", "inf"))),
        *(Column(f"zeros_{role}", f"zeros{gap}{role}", SHARE) for role in Sparsity.model_fields),
        *([Column("slope", "slope", FOUR_DECIMALS)] if record.slopes else []),
    ]
    return Table(columns, [_layer_row(record, number) for number in range(len(record.entropy_share))])


def _layer_row(record: DiagnosisRecord, number: int) -> list[Cell]:
    heads = [share for share in record.entropy_share[number] if share is not None]
    entropy: list[Cell] = [fmean(heads), min(heads), max(heads)] if heads else ["NaN"] * 3
    cells = [
        record.by_layer.overload[number],
        record.by_layer.collapse[number],
        record.non_finite.nan[number],
        record.non_finite.inf[number],
        *(getattr(record.sparsity, role)[number] for role in Sparsity.model_fields),
    ]
    return [number, *entropy, *cells, *([record.slopes[number]] if record.slopes else [])]


def alpha_table(record: DiagnosisRecord) -> Table:
    """Build one row for each DyT and Derf: alpha beside 1 / std of its input."""
    columns = [Column("module", "module"), Column("alpha", "alpha", FOUR_DECIMALS)]
    columns.append(Column("inverse_std", "1/std", FOUR_DECIMALS))
    return Table(columns, [[row.module, row.alpha, row.inverse_std] for row in record.alphas or ()])


def range_table(record: DiagnosisRecord) -> Table:
    """Build one row for each quantity of each operation: its extremes over all modules, and what they allow."""
    titles = ("operation", "quantity", "from", "to", "largest in", "overflow", "kernel")
    columns = [Column(title, title, COUNT if title in ("from", "to") else ()) for title in titles]
    groups: dict[tuple[str, str], list[Range]] = {}
    for row in record.ranges:
        groups.setdefault((row.op, row.quantity), []).append(row)
    return Table(columns, [[*key, *_extremes(rows)] for key, rows in groups.items()])


def _extremes(rows: list[Range]) -> Iterator[Cell]:
    """Yield the smallest and the largest value, where that is, whether it overflows, and the kernel's domain."""
    for values, extreme in (([row.min for row in rows], min), ([row.max for row in rows], max)):
        finite = [value for value in values if value is not None]
        yield f"{extreme(finite):.4g}" if len(finite) == len(values) else "not finite"
    yield max(rows, key=lambda row: float("inf") if row.largest is None else row.largest).module
    yield "no" if all(row.fits for row in rows) else "YES"
    if rows[0].kernel is None or rows[0].domain is None:
        yield ""
        return
    low, high = rows[0].domain
    yield f"{rows[0].kernel}: {low:g} to {high:g} {'holds' if all(row.in_domain for row in rows) else 'LEFT'}"


def _sentences(record: DiagnosisRecord) -> Iterator[str]:
    """Yield what the tables come to."""
    limits = (("overload", f"above {OVERLOAD:.0%}"), ("collapse", f"below {COLLAPSE:.0%}"))
    heads = ", ".join(f"{getattr(record, key):.1%} in {key} ({limit})" for key, limit in limits)
    yield f"Heads by their share of the maximum entropy: {heads}."
    nan, inf = sum(record.non_finite.nan), sum(record.non_finite.inf)
    if nan or inf:
        yield f"The blocks put out {nan:,} NaN and {inf:,} infinities: the model is broken."
    flops = record.flops
    yield (
        f"In the clear, zeros would save {flops.share:.1%} of a token's {flops.per_token:,} FLOPs in the blocks' "
        "matrices; under MPC they save nothing, because nobody may know where they are."
    )
    outside = {f"{row.op} by {row.kernel}" for row in record.ranges if row.in_domain is False}
    if outside:
        yield f"Expect inexact logits under {record.protocol}: {', '.join(sorted(outside))} leaves its domain."
    yield from _truncation_sentence(record)
    yield from record.missing


def _truncation_sentence(record: DiagnosisRecord) -> Iterator[str]:
    """Yield how many truncations are expected to fail, unless hardly any."""
    expected = sum(row.expected_failures for row in record.truncations)
    if expected >= MENTIONED_FAILURES:
        worst = max(record.truncations, key=lambda row: row.expected_failures)
        yield (
            f"Expect {expected:,.2f} failed truncations in each sequence under {record.protocol}, "
            f"{worst.expected_failures / expected:.0%} of them in {worst.op} of {worst.module}: each is off by 2^32 "
            "and destroys the logits that depend on it."
        )


# ---- figures


LETTERS = 15
"""Letters of a caption in an inch."""
NORM_MARKERS = {"attention": "o", "FFN": "s", "final": "D"}
QUANTITIES = (
    *("residual stream", "score minus row maximum", "row maximum", "row sum of exponentials"),
    *("variance", "mean square"),
)
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "erf")


def write_figures(record: DiagnosisRecord, folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG, drawn before the first is written; return where they lie."""
    drawings = dict(draw(record))
    contents = {f"{name}.svg": styles.svg(figure).encode() for name, figure in drawings.items()}
    contents |= {f"{name}.png": styles.png(figure) for name, figure in drawings.items()}
    files = {folder / f"{name}.{kind}": contents[f"{name}.{kind}"] for name in drawings for kind in ("svg", "png")}
    for path, content in files.items():
        files.write_bytes(path, content)
    return list(files)


def draw(record: DiagnosisRecord) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yield the name and a function that draws it, caption included, of every figure that there are data for."""
    for name, caption, figure in _figures(record):
        yield name, partial(_captioned, caption, figure)


def _figures(record: DiagnosisRecord) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
    entropy = (
        "Mean entropy of every attention head as a share of its maximum: 1 looks everywhere alike, 0 at one place "
        "only. Layers from top to bottom; grey is not a number."
    )
    sparsity = (
        "Exact zeros in the inputs of the QKV, up and down projections. Under MPC they save nothing: they are secret."
    )
    histogram = "Inputs of the activations, by layer; the share below zero is what a ReLU would make zeros."
    alphas = "alpha against 1 / std of its input, which it follows (arXiv 2503.10622); on the dashed line they are equal."
    yield "entropy", entropy, partial(figures.heat_maps, [(record.model, record.entropy_share)])
    yield "sparsity", sparsity, partial(sparsity_by_layer, record)
    if record.histograms:
        yield "pre-activations", histogram, partial(histograms, record)
    if largest_magnitudes(record):
        yield "ranges", "The largest magnitude of what secure kernels compute with, by layer.", partial(ranges, record)
    if record.alphas:
        yield "alphas", alphas, partial(alpha_scatter, record)
    if record.slopes:
        yield "slopes", "The learned slope for negative inputs, by layer.", partial(slopes_by_layer, record)


def _captioned(caption: str, draw: Callable[[], Figure]) -> Figure:
    """Put a caption below a figure that stands on no page."""
    figure = draw()
    figure.supxlabel(textwrap.fill(caption, int(LETTERS * figure.get_figwidth())), fontsize=8)
    return figure


def sparsity_by_layer(record: DiagnosisRecord) -> Figure:
    """Draw one line for each kind of projection."""
    figure, (panel,) = panels(1, height=2.4)
    for role, shares in record.sparsity:
        values = [float("nan") if share is None else 100 * share for share in shares]
        color = styles.PROJECTIONS[role]
        panel.plot(range(len(values)), values, marker="o", markersize=4, label=role, color=color)
    panel.set_ylim(-3, 103)
    panel.set_ylabel("zeros, %")
    label_layers(panel)
    figure.legend(loc="outside right center")
    return figure


def histograms(record: DiagnosisRecord) -> Figure:
    """Draw a density for each layer, from -reach to reach."""
    figure, axes = panel_grid(len(record.histograms), figures.ACROSS, height=1.5)
    for panel, histogram in zip(axes, record.histograms, strict=True):
        _density(panel, histogram)
    return figure


def _density(panel: Axes, histogram: Histogram) -> None:
    edges = np.linspace(-histogram.reach, histogram.reach, len(histogram.counts) + 1)
    panel.stairs(histogram.counts, edges, fill=True, color=styles.BLUE, alpha=0.7)
    panel.axvline(0, color=styles.INK, linewidth=0.8)
    panel.set_yticks([])
    panel.set_title(f"layer {histogram.layer}: {histogram.negative:.0%} below zero", fontsize=8)


def ranges(record: DiagnosisRecord) -> Figure:
    """Draw one line for each quantity."""
    figure, (panel,) = panels(1, height=2.6)
    for name, largest in largest_magnitudes(record).items():
        panel.plot(list(largest), list(largest.values()), marker="o", markersize=4, label=name)
    panel.set(yscale="log", ylabel="largest magnitude")
    label_layers(panel)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())
    figure.legend(loc="outside right center")
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
    rows = [row for row in record.alphas or () if row.inverse_std is not None and row.alpha is not None]
    for kind, shape in NORM_MARKERS.items():
        chosen = [row for row in rows if _norm_kind(row.module) == kind]
        x, y = [row.inverse_std or 0.0 for row in chosen], [row.alpha or 0.0 for row in chosen]
        panel.plot(x, y, shape, label=kind, markersize=5)
    panel.axline((1, 1), slope=1, color=styles.GUIDE, linestyle="--", linewidth=1)
    panel.set(xscale="log", yscale="log", xlabel="1 / std of the input", ylabel="alpha")
    panel.grid(True)
    figure.legend(loc="outside right center")
    return figure


def _norm_kind(module: str) -> str:
    """Return which norm a DyT or Derf replaces."""
    if layer(module) is None:
        return "final"
    return "attention" if before_attention(module) else "FFN"


def slopes_by_layer(record: DiagnosisRecord) -> Figure:
    """Draw one line over the layers."""
    figure, (panel,) = panels(1, height=2.2)
    values = [float("nan") if slope is None else slope for slope in record.slopes or ()]
    panel.plot(range(len(values)), values, marker="o", color=styles.ORANGE)
    panel.set_ylabel("slope")
    label_layers(panel)
    return figure
