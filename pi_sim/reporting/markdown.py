"""The report: one Markdown page and its figures, made from records alone."""

from collections.abc import Iterator
from pathlib import Path

from pi_sim.records import write_text
from pi_sim.reporting import figures
from pi_sim.reporting.findings import Findings, gather
from pi_sim.reporting.sections import provenance
from pi_sim.reporting.sections.cost import boundary, measured, operations
from pi_sim.reporting.sections.final_norm import final_norm
from pi_sim.reporting.sections.overview import one_row
from pi_sim.reporting.sections.papers import order
from pi_sim.reporting.sections.quality import privacy
from pi_sim.reporting.sections.training import subject

PAGE = "norm-free.md"
TITLE = "# GPT-2 with and without LayerNorm under secure two-party inference"
QUESTION = (
    "What do LayerNorm and the choice between GELU and ReLU cost under secure two-party inference, and what is each "
    "worth in perplexity? Each model below was trained from scratch, priced, run for real between two processes on "
    "secret shares and read in the clear; every number on this page comes from a record."
)
MADE = "<!-- Made by `pi-sim report` from records: change those, not this page. -->"
CAPTIONS = {
    "bytes": "Bytes that one party sends, by operation; the small ones are drawn together.",
    "tradeoff": "Perplexity in the clear against predicted network time. Blue GELU, orange ReLU; hollow without norms.",
    "loss": "Training loss. Blue GELU, orange ReLU; dashed without norms.",
}


def report(sources: list[Path], out: Path) -> list[Path]:
    """Write the page and its figures from the records in `sources`; what was written, the page last.

    Raises `UsageError` for a damaged record, or where no run has been recorded.
    """
    findings = gather(sources)
    drawings = {f"{name}-{each.size}": svg for each in findings for name, svg in figures.draw(each)}
    written = [out / "figures" / f"{name}.svg" for name in drawings]
    for path, svg in zip(written, drawings.values(), strict=True):
        write_text(path, svg)
    write_text(out / PAGE, page(findings, set(drawings)))
    return [*written, out / PAGE]


def page(findings: list[Findings], drawings: set[str]) -> str:
    """The whole page; `drawings` are the names of the figures that there are."""
    parts = [MADE, TITLE, QUESTION]
    for each in findings:
        parts += _size(each, drawings)
    parts += ["## What the numbers mean", provenance.conventions()]
    parts += ["## How these records were made", provenance.commands(findings), provenance.environments(findings)]
    return "\n\n".join(parts) + "\n"


def _size(findings: Findings, drawings: set[str]) -> Iterator[str]:
    """The sections on models of one size, without those that there are no records for."""
    sections = {
        f"## Size {findings.size}": [subject(findings), one_row(findings), _figure(findings, "tradeoff", drawings)],
        "### What privacy does to the result": [privacy(findings)],
        "### Where bytes and rounds go": [_figure(findings, "bytes", drawings), operations(findings)],
        "### Without the embedding and the vocabulary head": [boundary(findings)],
        "### Measured beside predicted": [measured(findings)],
        "### How far the papers' order holds": [order(findings)],
        "### With and without the final LayerNorm": [final_norm(findings)],
        "### Training": [_figure(findings, "loss", drawings)],
    }
    for heading, contents in sections.items():
        filled = [content for content in contents if content]
        yield from [heading, *filled] if filled else []


def _figure(findings: Findings, name: str, drawings: set[str]) -> str:
    """A figure in the page, if it was drawn."""
    file, caption = f"{name}-{findings.size}", CAPTIONS[name]
    return f"![{caption.split('.')[0]}](figures/{file}.svg)\n\n*{caption}*" if file in drawings else ""
