"""The report: Markdown pages and their figures, made from records alone."""

from collections.abc import Iterator
from pathlib import Path

from pi_sim.files import write_text
from pi_sim.reporting import figures
from pi_sim.reporting.findings import Findings, gather
from pi_sim.reporting.kernels import page as kernels
from pi_sim.reporting.lab import page as lab
from pi_sim.reporting.pages import MADE, embedded, filled
from pi_sim.reporting.sections import provenance
from pi_sim.reporting.sections.cost import boundary, measured, operations
from pi_sim.reporting.sections.final_norm import final_norm
from pi_sim.reporting.sections.overview import one_row
from pi_sim.reporting.sections.papers import order
from pi_sim.reporting.sections.quality import privacy
from pi_sim.reporting.sections.recipes import HEADING as ANOTHER
from pi_sim.reporting.sections.recipes import other_recipes, warning
from pi_sim.reporting.sections.training import subject

PAGE = "norm-free.md"
TITLE = "# GPT-2 with and without LayerNorm under secure two-party inference"
QUESTION = (
    "What do LayerNorm and the choice between GELU and ReLU cost under secure two-party inference, and what is each "
    "worth in perplexity? Each model below was trained from scratch, priced, run for real between two processes on "
    "secret shares and read in the clear; every number on this page comes from a record."
)
Drawings = dict[str, figures.Drawing]
"""Figures by the name of their file."""


def report(sources: list[Path], out: Path) -> list[Path]:
    """Write the pages and their figures from the records in `sources`; what was written, each page after its figures.

    Raises `UsageError` for a damaged record, or where no run has been recorded.
    """
    findings = gather(sources)
    drawings = {f"{drawing.name}-{each.size}": drawing for each in findings for drawing in figures.draw(each)}
    written = [out / "figures" / f"{name}.svg" for name in drawings]
    for path, drawing in zip(written, drawings.values(), strict=True):
        write_text(path, drawing.svg)
    write_text(out / PAGE, page(findings, drawings))
    return [*written, out / PAGE, *lab.report(sources, out), *kernels.report(sources, out)]


def page(findings: list[Findings], drawings: Drawings) -> str:
    """The whole page."""
    parts = [MADE, TITLE, QUESTION]
    for each in findings:
        parts += _size(each, drawings)
    parts += ["## What the numbers mean", provenance.conventions()]
    parts += ["## How these records were made", provenance.commands(findings), provenance.environments(findings)]
    return "\n\n".join(parts) + "\n"


def _size(findings: Findings, drawings: Drawings) -> Iterator[str]:
    """The sections on models of one size, without those that there are no records for."""
    sections = {
        f"## Size {findings.size}": [
            subject(findings),
            one_row(findings),
            warning(findings),
            _figure(findings, "tradeoff", drawings),
        ],
        "### What privacy does to the result": [privacy(findings)],
        "### Where bytes and rounds go": [_figure(findings, "operations", drawings), operations(findings)],
        "### Without the embedding and the vocabulary head": [boundary(findings)],
        "### Measured beside predicted": [measured(findings)],
        "### How far the papers' order holds": [order(findings)],
        f"### {ANOTHER}": [other_recipes(findings)],
        "### With and without the final LayerNorm": [final_norm(findings)],
        "### Training": [_figure(findings, "loss", drawings)],
    }
    return filled(sections)


def _figure(findings: Findings, name: str, drawings: Drawings) -> str:
    """A figure in the page, if it was drawn."""
    file = f"{name}-{findings.size}"
    return embedded(file, drawings[file].caption) if file in drawings else ""
