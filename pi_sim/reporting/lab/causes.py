"""Something changed: trainings that test why a result is what it is."""

import json
from statistics import fmean
from typing import Any

from pi_sim.reporting import tables
from pi_sim.reporting.figures.entropy import Matrix
from pi_sim.reporting.lab.entropy import first_layer, last
from pi_sim.reporting.lab.findings import Lab
from pi_sim.reporting.lab.quality import PAIRS, claimed
from pi_sim.reporting.recorded import Training
from pi_sim.reporting.seeds import Seeds
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, SHARE, change, perplexity

COLUMNS = [
    Column("model", "model"),
    Column("changed", "what was changed"),
    Column("seeds", "seeds", COUNT),
    Column("perplexity", "held-out perplexity, mean", COUNT),
    Column("usual", "unchanged, mean", COUNT),
    Column("change", "change", COUNT),
    Column("entropy", "layer 0, mean entropy", SHARE),
    Column("usual_entropy", "unchanged", SHARE),
]
CLAIMS = [
    Column("changed", "what was changed"),
    Column("claim", "published order"),
    Column("published", "published", COUNT),
    Column("usual", "here, unchanged", COUNT),
    Column("here", "here, changed", COUNT),
]


def table(lab: Lab) -> str:
    """One row for each change of a compared design; nothing where there are none."""
    rows = [_row(lab, trainings) for trainings in _alike(lab)]
    return tables.render(Table(COLUMNS, rows), "markdown") if rows else ""


def claims(lab: Lab) -> str:
    """The papers' claims about two designs that were both changed alike; nothing where there are none."""
    rows = [row for told, found in _by_change(lab).items() for row in _claims(lab, told, found)]
    return tables.render(Table(CLAIMS, rows), "markdown") if rows else ""


def _by_change(lab: Lab) -> dict[str, dict[str, Seeds]]:
    """What was changed, and the perplexities of the designs that it was changed in."""
    found: dict[str, dict[str, Seeds]] = {}
    for trainings in _alike(lab):
        told = _told_changes(lab, trainings[0])
        found.setdefault(told, {})[trainings[0].model] = Seeds.of(each.perplexity for each in trainings)
    return found


def _claims(lab: Lab, told: str, found: dict[str, Seeds]) -> list[list[Cell]]:
    pairs = [pair for pair in PAIRS if set(pair) <= found.keys()]
    usual = [change(lab.seeds(worse).mean, lab.seeds(better).mean) for better, worse in pairs]
    changed = [change(found[worse].mean, found[better].mean) for better, worse in pairs]
    return [[told, *claimed(*pair), *moved] for pair, *moved in zip(pairs, usual, changed, strict=True)]


def _told_changes(lab: Lab, training: Training) -> str:
    return ", ".join(_changes(training.record, lab.first(training.model).record))


def _alike(lab: Lab) -> list[list[Training]]:
    """The changed trainings of compared designs, those that differ in the seed alone together."""
    groups: dict[str, list[Training]] = {}
    for each in lab.changed:
        if each.model in lab.compared:
            key = json.dumps([each.model, _decisions(each.record)], sort_keys=True)
            groups.setdefault(key, []).append(each)
    return list(groups.values())


def _row(lab: Lab, trainings: list[Training]) -> list[Cell]:
    model = trainings[0].model
    found, usual = Seeds.of(each.perplexity for each in trainings), lab.seeds(model)
    told = _told_changes(lab, trainings[0])
    moved = change(found.mean, usual.mean)
    entropies = [_entropy(trainings), _entropy(lab.compared[model])]
    return [model, told, len(trainings), perplexity(found.mean), perplexity(usual.mean), moved, *entropies]


def _entropy(trainings: list[Training]) -> float | None:
    """Of the first layer's heads, as a share of its maximum; None where all trainings diverged."""
    found = [first_layer(each) for each in trainings if not each.diverged]
    return fmean(found) if found else None


def matrices(lab: Lab) -> list[tuple[str, Matrix]]:
    """For heat maps: the heads' entropies at the end of every changed training, under what was changed."""
    found = [trainings[0] for trainings in _alike(lab) if not trainings[0].diverged]
    return [(_title(lab, each), last(each)["entropy_share"]) for each in found]


def _title(lab: Lab, training: Training) -> str:
    told = [change.partition(" for ")[0] for change in _changes(training.record, lab.first(training.model).record)]
    return "\n".join([training.model, *told])


def _changes(record: dict[str, Any], usual: dict[str, Any]) -> list[str]:
    """The switches, settings, dimensions and text in which two trainings differ."""
    ours, theirs = _decisions(record), _decisions(usual)
    return [f"{key} {_told(ours[key])} for {_told(theirs[key])}" for key in sorted(ours) if ours[key] != theirs[key]]


def _decisions(record: dict[str, Any]) -> dict[str, Any]:
    """All that decides a training but its seed."""
    corpus = {"corpus": record["corpus"]["name"], "text": record["corpus"]["sha256"][:8]}
    return {**record["architecture"], **record["recipe"], **record["dimensions"], **corpus}


def _told(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
