"""Everything about a model under a protocol, in one row."""

from pi_sim.reporting import tables
from pi_sim.reporting.findings import Findings
from pi_sim.reporting.recorded import Run
from pi_sim.reporting.sections import subject
from pi_sim.reporting.sections.quality import effect
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import BYTES, COUNT, SECONDS, change, perplexity

BASELINE = "gelu_ln"
UNKNOWN = "–"
MODEL = [
    Column("model", "model"),
    Column("norms", "norms"),
    Column("perplexity", "held-out perplexity", COUNT),
    Column("seeds", "seeds", COUNT),
    Column("change", f"against {BASELINE}", COUNT),
]
COSTS = [
    Column("private", "private against plain", COUNT),
    Column("rounds", "rounds", COUNT),
    Column("bytes", "sent", BYTES),
    Column("offline_bytes", "offline", BYTES),
    Column("lan", "lan", SECONDS),
    Column("wan", "wan", SECONDS),
    Column("seconds", "measured, loopback", SECONDS),
]
QUALITY = (
    "Held-out perplexity is the plain model's, the mean over its seeds; whether a difference between designs is more "
    "than one between seeds is said below. `private against plain` is the change of the perplexity that privacy makes, "
    "on the same tokens; `lan` and `wan` are predicted."
)


def one_row(findings: Findings) -> str:
    """Quality in the clear and in private, and every cost, for each model and protocol."""
    protocol = subject.columns(findings.runs, subject.MEASURED)[1:]
    not_run: list[Cell] = [UNKNOWN] * (len(protocol) + len(COSTS))
    rows = [
        [*_model(findings, model), *cells]
        for model in findings.models
        for cells in [_run(findings, run) for run in findings.runs_of(model)] or [not_run]
    ]
    table = tables.render(Table([*MODEL, *protocol, *COSTS], rows), "markdown")
    return f"{subject.lead(findings.runs)} {QUALITY}\n\n{table}"


def _model(findings: Findings, model: str) -> list[Cell]:
    """What is known of a model in the clear."""
    found = findings.perplexity(model)
    if found is None:
        return [model, norms(findings, model), UNKNOWN, UNKNOWN, UNKNOWN]
    return [model, norms(findings, model), perplexity(found.mean), len(found.values), _moved(findings, model)]


def _moved(findings: Findings, model: str) -> str:
    """The change of the mean against the baseline's, if both were trained on the same text."""
    known = [(findings.reference(each), findings.perplexity(each)) for each in (model, BASELINE)]
    (ours, here), (theirs, there) = known
    if model == BASELINE or not (ours and here and theirs and there):
        return UNKNOWN
    return change(here.mean, there.mean) if ours.plan["corpus"] == theirs.plan["corpus"] else UNKNOWN


def norms(findings: Findings, model: str) -> str:
    """Which norms a model has."""
    design = findings.architecture(model)
    if not design:
        return UNKNOWN
    if design["norm"] == "none":
        return "none" if design["final_norm"] == "none" else "final only"
    return "all"


def _run(findings: Findings, run: Run) -> list[Cell]:
    """What is known of a model's run under a protocol."""
    total, measured = run.record["total"], run.record["measured"]
    return [
        *subject.cells(findings.runs, run, subject.MEASURED)[1:],
        effect(run),
        total["rounds"],
        total["bytes"],
        total["offline_bytes"],
        total["seconds"].get("lan", UNKNOWN),
        total["seconds"].get("wan", UNKNOWN),
        measured["seconds"],
    ]
