"""Where rounds, bytes and seconds go."""

from dataclasses import replace

from pi_sim.reporting import tables
from pi_sim.reporting.findings import Findings
from pi_sim.reporting.recorded import Run
from pi_sim.reporting.runs import mark, predicted_seconds
from pi_sim.reporting.sections import subject
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import BYTES, COUNT, SECONDS, Unit, fitting

MEASURED = [
    Column("sequences", "sequences", COUNT),
    Column("rounds", "rounds"),
    Column("bytes", "bytes"),
    Column("seconds", "one sequence", SECONDS),
    Column("compute_seconds", "computing", SECONDS),
    Column("communication_seconds", "communicating", SECONDS),
    Column("setup_seconds", "set-up of all", SECONDS),
    Column("network", "network"),
]


def operations(findings: Findings) -> str:
    """Bytes, then rounds, by operation."""
    sent = fitting(BYTES, [run.record["total"]["bytes"] for run in findings.runs])
    parts = [
        f"Sent by one party, in {sent.name}:",
        _by_operation(findings, "bytes", sent),
        "Rounds:",
        _by_operation(findings, "rounds", COUNT[0]),
    ]
    return "\n\n".join(parts)


def _by_operation(findings: Findings, key: str, unit: Unit) -> str:
    """One row for every run, one column for every operation that costs something in one of them."""
    costs = [{op: cost[key] for op, cost in run.by_operation().items()} for run in findings.priced]
    largest = {op: max(cost.get(op, 0) for cost in costs) for op in sorted({op for cost in costs for op in cost})}
    names = sorted(largest, key=lambda op: -largest[op])
    columns = [Column(name, name, (replace(unit, name=""),)) for name in (*names, "total")]
    rows: list[list[Cell]] = [
        [*subject.cells(findings.priced, run), *(cost.get(op) for op in names), run.record["total"][key]]
        for run, cost in zip(findings.priced, costs, strict=True)
    ]
    return tables.render(Table([*subject.columns(findings.priced), *columns], rows), "markdown")


def boundary(findings: Findings) -> str:
    """The totals again, without what grows with the vocabulary."""
    columns = [
        *subject.columns(findings.priced),
        Column("rounds", "rounds", COUNT),
        Column("bytes", "sent", BYTES),
        Column("offline_bytes", "offline", BYTES),
        Column("lan", "lan", SECONDS),
        Column("wan", "wan", SECONDS),
    ]
    return tables.render(Table(columns, [_inner(findings, run) for run in findings.priced]), "markdown")


def _inner(findings: Findings, run: Run) -> list[Cell]:
    inner = run.record["without_embedding_and_head"]
    seconds = [inner["seconds"].get(network, "–") for network in ("lan", "wan")]
    told = subject.cells(findings.priced, run)
    return [*told, inner["rounds"], inner["bytes"], inner["offline_bytes"], *seconds]


def measured(findings: Findings) -> str:
    """What the parties counted and where the time of one sequence went; then how well imitated networks were met."""
    columns = [*subject.columns(findings.runs), *MEASURED]
    table = tables.render(Table(columns, [_measured(findings, run) for run in findings.runs]), "markdown")
    return "\n\n".join([table, *_imitated(findings)])


def _measured(findings: Findings, run: Run) -> list[Cell]:
    record, found = run.record, run.record["measured"]
    marks = [mark(record, "rounds"), mark(record, "bytes")]
    parts = [found[key] for key in ("seconds", "compute_seconds", "communication_seconds", "setup_seconds")]
    network = "none imitated" if record["network"] == "none" else record["network"]
    return [*subject.cells(findings.runs, run), record["sequences"], *marks, *parts, network]


def _imitated(findings: Findings) -> list[str]:
    """Predicted and measured network seconds of the runs that imitated a network."""
    columns = [
        *subject.columns(findings.runs),
        Column("network", "network"),
        Column("predicted", "predicted", SECONDS),
        Column("measured", "measured", SECONDS),
        Column("ratio", "ratio", COUNT),
    ]
    rows: list[list[Cell]] = [
        [*subject.cells(findings.runs, run), run.record["network"], expected, waited, f"{waited / expected:.2f}"]
        for run in findings.runs
        if (expected := predicted_seconds(run.record))
        for waited in [run.record["measured"]["communication_seconds"]]
    ]
    return ["On an imitated network:", tables.render(Table(columns, rows), "markdown")] if rows else []
