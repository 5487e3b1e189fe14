"""What each design is worth in perplexity, beside what its paper prints, and what it costs."""

import math

from pi_sim.reporting import tables
from pi_sim.reporting.figures.relative import Change
from pi_sim.reporting.lab.findings import BASELINE, Lab
from pi_sim.reporting.lab.published import PUBLISHED
from pi_sim.reporting.seeds import Seeds
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import BYTES, COUNT, change, perplexity

QUALITY = [
    Column("model", "model"),
    Column("paper", "in its paper"),
    Column("seeds", "seeds", COUNT),
    Column("perplexity", "held-out perplexity, mean", COUNT),
    Column("range", "least to largest", COUNT),
    Column("change", f"against {BASELINE}", COUNT),
    Column("published", "published", COUNT),
]
COSTS = [Column("rounds", "rounds", COUNT), Column("bytes", "sent", BYTES)]
NOT_PUBLISHED = "–"


def table(lab: Lab) -> str:
    """One row for each compared design; its cost where it was estimated."""
    columns = [*QUALITY, *(COSTS if lab.estimates else [])]
    return tables.render(Table(columns, [_row(lab, model) for model in lab.compared]), "markdown")


def _row(lab: Lab, model: str) -> list[Cell]:
    found, paper = lab.seeds(model), PUBLISHED.get(model)
    cells: list[Cell] = [
        model,
        paper.name if paper else NOT_PUBLISHED,
        len(found.values),
        _mean(found),
        found.range,
        "" if model == BASELINE else change(found.mean, lab.seeds(BASELINE).mean),
        _published(model),
    ]
    total = lab.estimates.get(model, {}).get("total", {})
    return [*cells, *([total.get("rounds"), total.get("bytes")] if lab.estimates else [])]


def _mean(found: Seeds) -> str:
    diverged = sum(math.isinf(value) for value in found.values)
    return f"diverged, {diverged} of {len(found.values)}" if diverged else perplexity(found.mean)


def _published(model: str) -> str:
    paper = PUBLISHED.get(model)
    if paper is None or model == BASELINE:
        return NOT_PUBLISHED if paper is None else ""
    return "diverged" if math.isnan(paper.change) else f"{paper.change:+.1%}"


def sources(lab: Lab) -> str:
    """Where the published changes come from."""
    known = dict.fromkeys(PUBLISHED[model].source for model in lab.compared if model in PUBLISHED)
    return "Published: " + "; ".join(known) + "."


def changes(lab: Lab) -> list[Change]:
    """For the figure: every seed against the baseline's mean."""
    reference = lab.seeds(BASELINE).mean
    return [
        Change(
            model,
            [value / reference - 1 for value in lab.seeds(model).values if math.isfinite(value)],
            PUBLISHED[model].change if model in PUBLISHED and model != BASELINE else None,
        )
        for model in lab.compared
    ]


PAIRS = (
    ("gelu_ln", "relu_ln"),
    ("gelu_ln", "identity_ln"),
    ("gelu_ln", "relu_nonorm"),
    ("relu_ln", "relu_nonorm"),
    ("relu_nonorm", "gelu_nonorm"),
    ("aero_entropy", "aero_fused"),
    ("gelu_ln", "dyt_gelu"),
)
"""The papers' claims, the better design first."""


def claims(lab: Lab) -> str:
    """Each claim of a paper about two designs, and whether these seeds bear it out."""
    columns = [
        Column("claim", "published order"),
        Column("published", "published", COUNT),
        Column("here", "here", COUNT),
        Column("verdict", "verdict"),
    ]
    known = [pair for pair in PAIRS if set(pair) <= lab.compared.keys()]
    rows: list[list[Cell]] = [_claim(lab, better, worse) for better, worse in known]
    return tables.render(Table(columns, rows), "markdown")


def _claim(lab: Lab, better: str, worse: str) -> list[Cell]:
    ours, theirs = (lab.seeds(model) for model in (better, worse))
    return [*claimed(better, worse), change(theirs.mean, ours.mean), _verdict(ours, theirs)]


def claimed(better: str, worse: str) -> list[str]:
    """A claim, and by how much more the worse design's perplexity is in the papers."""
    published = (1 + PUBLISHED[worse].change) / (1 + PUBLISHED[better].change) - 1
    return [f"{better} ahead of {worse}", f"{published:+.1%}"]


def _verdict(better: Seeds, worse: Seeds) -> str:
    """No stronger than the ranges over the seeds."""
    if not better.repeated(worse):
        return "as published, one seed" if better.mean < worse.mean else "unlike the paper, one seed"
    if not better.apart(worse):
        return "not decided: the ranges overlap"
    verdict = "as published" if better.mean < worse.mean else "unlike the paper"
    return f"{verdict}; ranges apart, by chance in {better.chance(worse)}"
