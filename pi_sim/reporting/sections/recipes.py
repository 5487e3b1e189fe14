"""Models trained with another recipe than the one that the page compares them by."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pi_sim.reporting import tables
from pi_sim.reporting.findings import Findings
from pi_sim.reporting.recorded import Training
from pi_sim.reporting.seeds import Seeds
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, change, perplexity

HEADING = "With another recipe"
LEAD = "The same designs, dimensions and text, trained with another recipe; the change is against the usual one's mean:"
COLUMNS = [
    Column("changed", "what was changed"),
    Column("model", "model"),
    Column("seeds", "seeds", COUNT),
    Column("perplexity", "held-out perplexity, mean", COUNT),
    Column("range", "least to largest", COUNT),
    Column("usual", "usual recipe, mean", COUNT),
    Column("change", "change", COUNT),
]

BEST_LEAD = (
    "Each of these designs by the best of the recipes that were tried for it, which compares designs more fairly than "
    "any one recipe does:"
)
BEST = [
    Column("model", "model"),
    Column("recipe", "recipe"),
    Column("perplexity", "held-out perplexity, mean", COUNT),
    Column("change", "against the first", COUNT),
]


@dataclass(frozen=True)
class Other:
    """What came of another recipe for a model, and of the usual one."""

    model: str
    changed: str
    found: Seeds
    usual: Seeds


def other_recipes(findings: Findings) -> str:
    """A table, one recipe after the other; nothing where there is only the usual one."""
    others = sorted(_others(findings), key=lambda other: other.changed)
    if not others:
        return ""
    table = Table(COLUMNS, [_row(other) for other in others])
    best = Table(BEST, _best(others))
    return "\n\n".join([LEAD, tables.render(table, "markdown"), BEST_LEAD, tables.render(best, "markdown")])


def warning(findings: Findings) -> str:
    """The models that the shared recipe does not suit best; nothing where no better one was tried."""
    better = [other for other in _others(findings) if other.found.mean < other.usual.mean]
    told = ", ".join(
        f"{other.model} reaches {perplexity(other.found.mean)} instead of {perplexity(other.usual.mean)} with "
        f"{other.changed}"
        for other in better
    )
    depends = f"How the designs compare depends on the recipe that they share here: {told} (see *{HEADING}*)."
    return depends if better else ""


def _row(other: Other) -> list[Cell]:
    found, usual = other.found, other.usual
    seeds: list[Cell] = [len(found.values), perplexity(found.mean), found.range]
    return [other.changed, other.model, *seeds, perplexity(usual.mean), change(found.mean, usual.mean)]


def _best(others: list[Other]) -> list[list[Cell]]:
    """The best recipe of every model, best model first."""
    tried = {other.model: ("the usual", other.usual.mean) for other in others}
    for other in others:
        tried[other.model] = min(tried[other.model], (other.changed, other.found.mean), key=lambda each: each[1])
    ranked = sorted(tried.items(), key=lambda item: item[1][1])
    first = ranked[0][1][1]
    return [
        [model, recipe, perplexity(mean), "" if mean == first else change(mean, first)]
        for model, (recipe, mean) in ranked
    ]


def _others(findings: Findings) -> Iterator[Other]:
    """Every other recipe of every model, over its seeds."""
    for model in findings.models:
        reference, usual = findings.reference(model), findings.perplexity(model)
        if reference is None or usual is None:
            continue
        for trainings in _groups(findings, reference):
            changed = changes(trainings[0].record["recipe"], reference.record["recipe"])
            yield Other(model, changed, Seeds.of(each.perplexity for each in trainings), usual)


def _groups(findings: Findings, reference: Training) -> list[list[Training]]:
    """The trainings that differ from the reference in the recipe, by recipe."""
    groups: dict[str, list[Training]] = {}
    for training in findings.trainings:
        # A recipe also says how much of a text is seen: of the corpus the text alone must be the same.
        text, recipe = training.plan["corpus"]["sha256"], training.plan["recipe"]
        alike = training.same(reference, "seed", "recipe", "corpus") and text == reference.plan["corpus"]["sha256"]
        if alike and recipe != reference.plan["recipe"]:
            groups.setdefault(json.dumps(recipe, sort_keys=True), []).append(training)
    return list(groups.values())


def changes(recipe: dict[str, Any], usual: dict[str, Any]) -> str:
    """The settings in which two recipes differ."""
    keys = [key for key in sorted(recipe) if recipe[key] != usual.get(key)]
    return ", ".join(f"{key} {_told(recipe[key])} for {_told(usual.get(key))}" for key in keys)


def _told(value: Any) -> str:
    return "none" if value is None else str(value)
