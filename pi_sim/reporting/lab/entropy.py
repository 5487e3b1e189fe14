"""How evenly heads look around: the papers' entropic overload, found or not found."""

from statistics import fmean

from pi_sim.diagnosis.entropy import OVERLOAD, overloaded, part
from pi_sim.records import JsonObject
from pi_sim.reporting import tables
from pi_sim.reporting.figures.along import Course
from pi_sim.reporting.figures.entropy import Matrix
from pi_sim.reporting.lab.findings import Lab
from pi_sim.reporting.recorded import Training
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, SHARE

COLUMNS = [
    Column("model", "model"),
    Column("seeds", "seeds", COUNT),
    Column("first", "layer 0, mean entropy", SHARE),
    Column("first_overload", "layer 0, overloaded heads", SHARE),
    Column("rest", "later layers, mean entropy", SHARE),
    Column("rest_overload", "later layers, overloaded heads", SHARE),
]
CLAIM = (
    "The papers report that without norms GELU overloads early layers, where heads look everywhere alike, and that "
    f"ReLU does so far less. Entropy is given as a share of its maximum; a head is overloaded above {OVERLOAD:.0%}."
)


def table(lab: Lab) -> str:
    """The first layer beside the later ones at the end of training, over all seeds."""
    rows = [_row(model, trainings) for model, trainings in lab.compared.items()]
    return tables.render(Table(COLUMNS, [row for row in rows if row]), "markdown")


def _row(model: str, trainings: list[Training]) -> list[Cell]:
    found = [last(each)["entropy_share"] for each in trainings if not each.diverged]
    if not found:
        return []
    first, rest = [each[:1] for each in found], [each[1:] for each in found]
    return [model, len(found), *_mean(first), *_mean(rest)]


def _mean(seeds: list[Matrix]) -> list[Cell]:
    """Mean share, and the part of heads that are overloaded."""
    heads = [share for layers in seeds for layer in layers for share in layer if share is not None]
    return [fmean(heads), fmean(part(layers, overloaded) for layers in seeds)]


def verdict(lab: Lab) -> str:
    """What the first layers of the two norm-free designs say about the papers' claim; nothing if one is missing."""
    gelu, relu = (_overloads(lab, model) for model in ("gelu_nonorm", "relu_nonorm"))
    if not gelu or not relu:
        return ""
    if len(gelu) == 1 or len(relu) == 1:
        found = "of one seed, which decides nothing"
    elif min(gelu) > max(relu):
        found = "so that every seed shows what the papers report"
    elif min(relu) > max(gelu):
        found = "which is the opposite of what the papers report"
    else:
        found = "so that these seeds do not decide it"
    return (
        f"Without norms {_span(gelu)} of layer 0's heads are overloaded with GELU and {_span(relu)} with ReLU, {found}."
    )


def _overloads(lab: Lab, model: str) -> list[float]:
    """The part of layer 0's heads that are overloaded, by seed."""
    trainings = [each for each in lab.compared.get(model, []) if not each.diverged]
    return [part(last(each)["entropy_share"][:1], overloaded) for each in trainings]


def _span(parts: list[float]) -> str:
    return f"{min(parts):.0%}" if min(parts) == max(parts) else f"{min(parts):.0%} to {max(parts):.0%}"


def first_layer(training: Training) -> float:
    """The mean entropy of layer 0 at the end of training, as a share of its maximum."""
    return fmean(share for share in last(training)["entropy_share"][0] if share is not None)


def last(training: Training) -> JsonObject:
    """The observation at the training's end."""
    found: JsonObject = training.record["observations"][-1]
    return found


def matrices(lab: Lab) -> list[tuple[str, Matrix]]:
    """For the heat maps: of each design the training that stands for it."""
    return [(model, last(training)["entropy_share"]) for model, training in _standing(lab)]


def courses(lab: Lab) -> list[Course]:
    """For the lines: each layer's mean entropy along that training."""
    return [_course(model, training.record["observations"]) for model, training in _standing(lab)]


def _standing(lab: Lab) -> list[tuple[str, Training]]:
    """Each design with the training that stands for it, without those that diverged."""
    found = [(model, lab.first(model)) for model in lab.compared]
    return [(model, training) for model, training in found if not training.diverged]


def _course(model: str, observations: list[JsonObject]) -> Course:
    layers = zip(*([_layer(heads) for heads in each["entropy_share"]] for each in observations), strict=True)
    return Course(model, [each["tokens"] for each in observations], [list(values) for values in layers])


def _layer(heads: list[float | None]) -> float:
    known = [share for share in heads if share is not None]
    return fmean(known) if known else float("nan")
