"""The lab's page and its figures, made from records alone."""

from collections.abc import Iterator
from pathlib import Path

from pi_sim.reporting.figures import along, recovery, relative
from pi_sim.reporting.figures import entropy as heat
from pi_sim.reporting.lab import causes, conversion, entropy, learned, provenance, quality, sparsity
from pi_sim.reporting.lab.findings import FOLDER, Lab, gather
from pi_sim.reporting.pages import MADE, Drawing, figure, filled, write

PAGE = "model-lab.md"
TITLE = "# The model lab: designs for private inference, trained by one recipe"
QUESTION = (
    'What do the designs of "ReLU\'s Revival", AERO, "ReLU Strikes Back" and "Transformers without Normalization" '
    "cost in quality, and do their explanations hold? Each model below was trained from scratch by the same recipe; "
    "every number comes from a record."
)
ALONG = "Mean entropy of each layer's heads along the training, as a share of its maximum; one seed."
CHANGED = "Entropy of each head at the end of the trainings in which something was changed; one seed."
SLOPES = "The learned slope of each layer along the training; one seed."


def report(sources: list[Path], out: Path) -> list[Path]:
    """Write the page and its figures from the records in the `lab` of `sources`; nothing where there are none."""
    lab = gather(sources)
    if lab is None:
        return []
    figures = drawings(lab)
    return write(out / PAGE, page(lab, figures), figures)


def drawings(lab: Lab) -> dict[str, Drawing]:
    """Every figure that there are records for."""
    found: dict[str, Drawing] = {
        "quality": (relative.CAPTION, lambda: relative.changes(quality.changes(lab))),
        "entropy": (heat.CAPTION, lambda: heat.heat_maps(entropy.matrices(lab))),
        "entropy-along": (ALONG, lambda: along.courses(entropy.courses(lab), "entropy / maximum", top=1.0)),
    }
    if causes.matrices(lab):
        found["changed"] = CHANGED, lambda: heat.heat_maps(causes.matrices(lab))
    if learned.courses(lab):
        found["slopes"] = SLOPES, lambda: along.courses(learned.courses(lab), "slope")
    if lab.conversions:
        found["recovery"] = recovery.CAPTION, lambda: recovery.recoveries(conversion.recoveries(lab))
    return {_file(name): drawing for name, drawing in found.items()}


def page(lab: Lab, figures: dict[str, Drawing]) -> str:
    """The whole page."""
    return "\n\n".join([MADE, TITLE, QUESTION, *_sections(lab, figures)]) + "\n"


def _sections(lab: Lab, figures: dict[str, Drawing]) -> Iterator[str]:
    """Every section that has contents."""
    sections = {
        "## Quality": [
            provenance.subject(lab),
            quality.table(lab),
            quality.sources(lab),
            _figure("quality", figures),
            quality.claims(lab),
        ],
        "## Entropy": [
            entropy.CLAIM,
            entropy.table(lab),
            entropy.verdict(lab),
            _figure("entropy", figures),
            _figure("entropy-along", figures),
        ],
        "## Why": [provenance.reasons(lab), causes.table(lab), causes.claims(lab), _figure("changed", figures)],
        "## What slopes and alphas became": [learned.slopes(lab), _figure("slopes", figures), learned.alphas(lab)],
        "## Sparsity": [sparsity.table(lab)],
        "## Conversion": [provenance.converted(lab), conversion.table(lab), _figure("recovery", figures)],
        "## How these records were made": [provenance.commands(lab), provenance.environments(lab)],
    }
    return filled(sections)


def _figure(name: str, figures: dict[str, Drawing]) -> str:
    return figure(_file(name), figures)


def _file(name: str) -> str:
    """A figure's name among those of other pages."""
    return f"{FOLDER}-{name}"
