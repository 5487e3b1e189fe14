"""How far the papers' order of the four designs holds, computed from the records and said with no more than that."""

import math
from collections.abc import Iterator

from pi_sim.reporting import tables
from pi_sim.reporting.findings import DESIGNS, Findings
from pi_sim.reporting.sections.training import parameters, references
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, change, perplexity

PUBLISHED = {
    "gelu_ln": ("SM+LN+G", "2.69", ""),
    "relu_ln": ("SM+LN+R", "2.76", "+2.5%"),
    "gelu_nonorm": ("SM+G", "3.20", "+18.9%"),
    "relu_nonorm": ("SM+R", "2.94", "+9.2%"),
}
"""Design, perplexity and its change as printed in arXiv 2501.03489, table 2: GPT-2, 12 layers, 128 tokens."""

NORMED, BARE = DESIGNS[:2], DESIGNS[2:]

SOURCES = (
    "The papers: [ReLU's Revival](https://arxiv.org/abs/2410.09637) reports that without norms ReLU is better than "
    "GELU, and that both stay behind LayerNorm. The published numbers are those of "
    "[arXiv 2501.03489](https://arxiv.org/abs/2501.03489), table 2, for GPT-2 with 12 layers at 128 tokens. Size, text "
    "and tokenizer are others here, so that only the order of the designs can be compared."
)


def order(findings: Findings) -> str:
    """The published numbers beside ours, and what they have in common; nothing unless two designs were trained."""
    known = {model: found for model in DESIGNS if (found := findings.reference(model))}
    if len(known) < 2:
        return ""
    numbers = {model: _number(training.perplexity) for model, training in known.items()}
    verdicts = "\n".join(f"- {verdict}" for verdict in (*_activation(findings, numbers), *_norms(findings, numbers)))
    return "\n\n".join(part for part in (SOURCES, _table(findings, numbers), verdicts, _scope(findings)) if part)


def _number(value: float) -> float:
    """A training that diverged is behind every other."""
    return value if math.isfinite(value) else math.inf


def _table(findings: Findings, numbers: dict[str, float]) -> str:
    columns = [
        Column("design", "design"),
        Column("model", "model"),
        Column("published", "published", COUNT),
        Column("published_change", "change", COUNT),
        Column("here", "here", COUNT),
        Column("change", "change", COUNT),
        Column("seeds", "over all seeds", COUNT),
    ]
    return tables.render(Table(columns, [_row(findings, numbers, model) for model in numbers]), "markdown")


def _row(findings: Findings, numbers: dict[str, float], model: str) -> list[Cell]:
    design, published, moved = PUBLISHED[model]
    here, baseline = numbers[model], numbers.get("gelu_ln", math.nan)
    ours = "" if model == "gelu_ln" else change(here, baseline)
    return [design, model, published, moved, perplexity(here), ours, spread(findings, model)]


def spread(findings: Findings, model: str) -> str:
    """The least and the largest perplexity over the seeds, and how many there were."""
    found = [training.perplexity for training in findings.seeds(model)]
    return f"{perplexity(min(found))} to {perplexity(max(found))} ({len(found)})" if len(found) > 1 else "one seed"


def _activation(findings: Findings, numbers: dict[str, float]) -> Iterator[str]:
    """Without norms, ReLU against GELU."""
    if set(numbers) >= set(BARE):
        holds = numbers["relu_nonorm"] < numbers["gelu_nonorm"]
        verdict = "as published" if holds else "unlike the published order"
        yield f"relu_nonorm is {_against(findings, numbers, 'relu_nonorm', 'gelu_nonorm')}: {verdict}."


def _norms(findings: Findings, numbers: dict[str, float]) -> Iterator[str]:
    """Each design without norms against each with them."""
    pairs = [(bare, normed) for bare in BARE for normed in NORMED if {bare, normed} <= set(numbers)]
    against = [pair for pair in pairs if numbers[pair[0]] <= numbers[pair[1]]]
    if pairs and not against:
        yield "Every design without norms is behind every design with LayerNorm, as published."
    for bare, normed in against:
        yield f"{bare} is {_against(findings, numbers, bare, normed)}: unlike the published order."


def _against(findings: Findings, numbers: dict[str, float], one: str, other: str) -> str:
    """How one model stands against another, and whether the seeds bear it out."""
    place = "ahead of" if numbers[one] < numbers[other] else "behind" if numbers[one] > numbers[other] else "level with"
    said = f"{place} {other} ({perplexity(numbers[one])} against {perplexity(numbers[other])}"
    return f"{said}, {change(numbers[one], numbers[other])}; {_chance(findings, one, other)})"


def _chance(findings: Findings, one: str, other: str) -> str:
    """Whether the ranges over the seeds lie apart."""
    ours, theirs = ([_number(each.perplexity) for each in findings.seeds(model)] for model in (one, other))
    if min(len(ours), len(theirs)) < 2:
        return "not repeated with other seeds"
    apart = max(ours) < min(theirs) or max(theirs) < min(ours)
    return f"the ranges over {len(ours)} and {len(theirs)} seeds {'lie apart' if apart else 'overlap'}"


def _scope(findings: Findings) -> str:
    return f"This is said of models of {parameters(references(findings))} on their corpus, and of no others."
