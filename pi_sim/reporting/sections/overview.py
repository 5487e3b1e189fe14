"""Everything about a model under a protocol, in one row."""

from pi_sim.reporting import tables
from pi_sim.reporting.findings import Findings, Run
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import BYTES, COUNT, SECONDS, change, perplexity

BASELINE = "gelu_ln"
UNKNOWN = "–"
COLUMNS = [
    Column("model", "model"),
    Column("norms", "norms"),
    Column("perplexity", "held-out perplexity", COUNT),
    Column("change", f"against {BASELINE}", COUNT),
    Column("protocol", "protocol"),
    Column("private", "private perplexity", COUNT),
    Column("rounds", "rounds", COUNT),
    Column("bytes", "sent", BYTES),
    Column("offline_bytes", "offline", BYTES),
    Column("lan", "lan", SECONDS),
    Column("wan", "wan", SECONDS),
    Column("seconds", "measured", SECONDS),
]
NOT_RUN: list[Cell] = [UNKNOWN] * 8


def one_row(findings: Findings) -> str:
    """Quality in the clear and in private, and every cost, for each model and protocol."""
    rows = [
        [*_model(findings, model), *cells]
        for model in findings.models
        for cells in [_run(run) for run in findings.runs_of(model)] or [NOT_RUN]
    ]
    return tables.render(Table(COLUMNS, rows), "markdown")


def _model(findings: Findings, model: str) -> list[Cell]:
    """What is known of a model in the clear."""
    reference, baseline = findings.reference(model), findings.reference(BASELINE)
    if reference is None:
        return [model, norms(findings, model), UNKNOWN, UNKNOWN]
    comparable = baseline and model != BASELINE and reference.record["corpus"] == baseline.record["corpus"]
    moved = change(reference.perplexity, baseline.perplexity) if baseline and comparable else UNKNOWN
    return [model, norms(findings, model), perplexity(reference.perplexity), moved]


def norms(findings: Findings, model: str) -> str:
    """Which norms a model has."""
    design = findings.architecture(model)
    if not design:
        return UNKNOWN
    if design["norm"] == "none":
        return "none" if design["final_norm"] == "none" else "final only"
    return "all"


def _run(run: Run) -> list[Cell]:
    """What is known of a model's run under a protocol."""
    total, measured = run.record["total"], run.record["measured"]
    return [
        run.protocol,
        perplexity(run.record["perplexity"]["private"]),
        total["rounds"],
        total["bytes"],
        total["offline_bytes"],
        total["seconds"].get("lan", UNKNOWN),
        total["seconds"].get("wan", UNKNOWN),
        measured["seconds"],
    ]
