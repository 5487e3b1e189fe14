"""Trained models changed into other designs, and how fine-tuning brings their quality back."""

import math
import sys

from pi_sim.records import JsonObject
from pi_sim.reporting import tables
from pi_sim.reporting.figures.recovery import Recovery
from pi_sim.reporting.lab.findings import Lab
from pi_sim.reporting.recorded import Training
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, change, perplexity

COLUMNS = [
    Column("source", "converted"),
    Column("surgery", "surgery"),
    Column("before", "before", COUNT),
    Column("after", "right after", COUNT),
    Column("tokens", "fine-tuned, tokens", COUNT),
    Column("end", "then", COUNT),
    Column("change", "against before", COUNT),
]
LARGEST = math.log(sys.float_info.max)


def table(lab: Lab) -> str:
    """Quality before surgery, right after, and after fine-tuning; nothing where nothing was converted."""
    rows = [_row(each) for each in lab.conversions]
    return tables.render(Table(COLUMNS, rows), "markdown") if rows else ""


def _row(training: Training) -> list[Cell]:
    origin, end = training.record["origin"], training.perplexity
    after = perplexity(origin["after"]["perplexity"]) if origin["surgery"] else ""
    before = _before(training)["perplexity"]
    tokens = f"{training.record['corpus']['tokens_seen']:,}"
    return [
        _source(training),
        _surgery(training),
        perplexity(before),
        after,
        tokens,
        perplexity(end),
        change(end, before),
    ]


def _before(training: Training) -> JsonObject:
    """The quality of the model that was converted, or of the one that was not."""
    origin = training.record["origin"]
    found: JsonObject = origin["before"] if origin["surgery"] else origin["held_out"]
    return found


def _source(training: Training) -> str:
    """The folder of the model that was converted, or of the one that was not."""
    origin = training.record["origin"]
    return str(origin["source"] if origin["surgery"] else origin["model"])


def _surgery(training: Training) -> str:
    surgery = training.record["origin"]["surgery"] or {}
    return ", ".join(f"{switch} {str(value).lower()}" for switch, value in surgery.items()) or "none, to compare"


def recoveries(lab: Lab) -> list[Recovery]:
    """For the figure, on the sample of held-out text that was observed along fine-tuning."""
    return [_recovery(each) for each in lab.conversions]


def _recovery(training: Training) -> Recovery:
    known = [each for each in training.record["observations"] if each["held_out_loss"] is not None]
    return Recovery(
        f"{_source(training)}: {_surgery(training)}",
        _perplexity(_before(training)["sample"]["loss"]),
        [each["tokens"] for each in known],
        [_perplexity(each["held_out_loss"]) for each in known],
    )


def _perplexity(loss: float) -> float:
    """Beyond all numbers where the logarithm is beyond those of a float."""
    return math.exp(loss) if loss < LARGEST else math.inf
