"""What leaky slopes and DyT's alphas became."""

from statistics import fmean

from pi_sim.reporting import tables
from pi_sim.reporting.figures.along import Course
from pi_sim.reporting.lab.entropy import last
from pi_sim.reporting.lab.findings import Lab
from pi_sim.reporting.recorded import Training
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, Unit

THREE = (Unit(0, "", 1, 3),)


def slopes(lab: Lab) -> str:
    """The learned slopes by layer, each seed a row; nothing where no design has any."""
    found = [each for trainings in lab.compared.values() for each in trainings if has_slopes(each)]
    if not found:
        return ""
    layers = range(len(last(found[0])["slopes"]))
    columns = [Column("model", "model"), Column("seed", "seed", COUNT)]
    columns += [Column(f"layer{layer}", f"layer {layer}", THREE) for layer in layers]
    rows: list[list[Cell]] = [[each.model, each.record["seed"], *last(each)["slopes"]] for each in found]
    return f"{_sentence(found)}\n\n{tables.render(Table(columns, rows), 'markdown')}"


def _sentence(found: list[Training]) -> str:
    """Where the slopes ended, against the paper's claim."""
    start = next(slope for slope in found[0].record["observations"][0]["slopes"] if slope is not None)
    ends = [abs(slope) for each in found for slope in last(each)["slopes"] if slope is not None]
    return (
        "ReLU's Revival lets norm-free models learn the slope of a leaky ReLU, and finds that it goes to nearly zero, "
        f"to ReLU itself. Here slopes start at {start:.2g} and end between {min(ends):.3f} and {max(ends):.3f} in size."
    )


def has_slopes(training: Training) -> bool:
    """Whether the design learns them."""
    return bool(training.record["observations"][-1]["slopes"])


def courses(lab: Lab) -> list[Course]:
    """For the lines: each layer's slope along the training that stands for its design."""
    found = [lab.first(model) for model in lab.compared if has_slopes(lab.first(model))]
    return [_course(each) for each in found]


def _course(training: Training) -> Course:
    observations = training.record["observations"]
    layers = zip(*(each["slopes"] for each in observations), strict=True)
    return Course(training.model, [each["tokens"] for each in observations], [list(values) for values in layers])


def alphas(lab: Lab) -> str:
    """How close DyT's alphas come to 1 / std of their inputs; nothing where no design has any."""
    found = [last(each)["alphas"] for each in _of_dyt(lab) if last(each)["alphas"]]
    if not found:
        return ""
    ratios = [each["alpha"] / each["inverse_std"] for alphas in found for each in alphas if each["inverse_std"]]
    return (
        "DyT's paper finds that alpha follows 1 / std of its input during training. Here alpha ends at "
        f"{min(ratios):.2f} to {max(ratios):.2f} times 1 / std over layers and seeds, {fmean(ratios):.2f} on average."
    )


def _of_dyt(lab: Lab) -> list[Training]:
    trainings = [each for found in lab.compared.values() for each in found]
    return [each for each in trainings if each.model.startswith("dyt") and not each.diverged]
