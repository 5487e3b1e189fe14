"""Where bytes and rounds go: one bar for every model under every protocol, by operation."""

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pi_sim.records import JsonObject
from pi_sim.reporting.figures.style import OTHER, panels
from pi_sim.reporting.findings import Findings
from pi_sim.reporting.recorded import Run
from pi_sim.reporting.sections import subject
from pi_sim.reporting.units import BYTES, fitting

CAPTION = "Bytes that one party sends, and rounds, by operation. Operations that are small in both are drawn together."
COLORS = {
    "softmax": "#0072B2",
    "gelu": "#E69F00",
    "relu": "#D55E00",
    "layernorm": "#009E73",
    "linear": "#56B4E9",
    "matmul": "#CC79A7",
    "embedding": "#F0E442",
    "multiply": "#000000",
}
SLIVER = 0.02
"""An operation below this share of the longest bar, in bytes and in rounds, is drawn as part of the others."""
SUBJECT = "layernorm"
"""What the page is about is drawn however small it is."""

Parts = list[tuple[str, str, list[str]]]


def by_operation(findings: Findings) -> Figure:
    """Two panels with the same bars: bytes, and rounds."""
    runs = findings.priced
    costs = [run.by_operation() for run in runs]
    unit = fitting(BYTES, [run.record["total"]["bytes"] for run in runs])
    parts = list(_parts(costs))
    figure, (sent, rounds) = panels(2, height=0.8 + 0.36 * len(runs), sharey=True)
    _bars(sent, costs, "bytes", parts, unit.divisor)
    _bars(rounds, costs, "rounds", parts, 1)
    sent.set_yticks(range(len(runs)), [_label(runs, run) for run in runs])
    sent.invert_yaxis()
    sent.set_xlabel(f"sent by one party, {unit.name}")
    rounds.set_xlabel("rounds")
    figure.legend(*sent.get_legend_handles_labels(), loc="outside upper center", ncols=9, columnspacing=1.2)
    return figure


def _bars(panel: Axes, costs: list[dict[str, JsonObject]], key: str, parts: Parts, divisor: float) -> None:
    """Stacked bars, and each one's sum at its end."""
    left = [0.0] * len(costs)
    for name, color, ops in parts:
        widths = [sum(cost[op][key] for op in ops if op in cost) / divisor for cost in costs]
        panel.barh(range(len(costs)), widths, left=left, height=0.66, color=color, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, end in enumerate(left):
        panel.text(end + 0.01 * max(left), place, f"{end:,.0f}", va="center", color="#444444")
    panel.set_xlim(0, 1.18 * max(left))


def _parts(costs: list[dict[str, JsonObject]]) -> Iterator[tuple[str, str, list[str]]]:
    """(label, colour, operations) of each part of the bars: the visible operations, then all others together."""
    seen = sorted({op for cost in costs for op in cost})
    visible = [op for op in COLORS if op in seen and (op == SUBJECT or _visible(op, costs))]
    yield from ((op, COLORS[op], [op]) for op in visible)
    rest = [op for op in seen if op not in visible]
    if rest:
        yield "other", OTHER, rest


def _visible(op: str, costs: list[dict[str, JsonObject]]) -> bool:
    """Whether an operation can be seen in one of the panels."""
    return any(
        max(cost[op][key] for cost in costs if op in cost) >= SLIVER * max(_sum(cost, key) for cost in costs)
        for key in ("bytes", "rounds")
    )


def _sum(cost: dict[str, JsonObject], key: str) -> int:
    return sum(each[key] for each in cost.values())


def _label(runs: list[Run], run: Run) -> str:
    """A bar's name: what tells its run from the others."""
    return " · ".join(f"{cell} tokens" if isinstance(cell, int) else str(cell) for cell in subject.cells(runs, run))
