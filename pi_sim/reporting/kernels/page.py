"""The page and its figures, made from records alone; and its tables for a terminal."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pi_sim.records import KernelTiming
from pi_sim.reporting import tables
from pi_sim.reporting.figures.kernels import Dots, dots
from pi_sim.reporting.kernels import exactness, models, operations, prose, targets
from pi_sim.reporting.kernels.findings import Kernels, gather
from pi_sim.reporting.pages import MADE, Drawing, figure, filled, write
from pi_sim.reporting.tables import Table

PAGE = "kernels.md"


def report(sources: list[Path], out: Path) -> list[Path]:
    """Write the page and its figures from the bench recorded in `sources`; nothing where there is none."""
    kernels = gather(sources)
    if kernels is None:
        return []
    figures = drawings(kernels)
    return write(out / PAGE, page(kernels, figures), figures)


def terminal(kernels: Kernels) -> str:
    """What was measured, without the words around it."""
    found = operations.every(kernels), models.table(kernels), exactness.truncations(kernels)
    return "\n\n".join(tables.render(table, "table") for table in found if table.rows)


def drawings(kernels: Kernels) -> dict[str, Drawing]:
    """Every figure that something was measured for."""
    figures = {
        "kernels-bytes": (prose.BYTES, "bytes an element", lambda each: each.bytes),
        "kernels-microseconds": (prose.SECONDS, "µs an element", lambda each: 1e6 * (each.seconds or 0)),
    }
    found: dict[str, Drawing] = {}
    for name, (caption, title, amount) in figures.items():
        values = _dots(kernels, amount)
        if values:
            found[name] = caption, lambda values=values, title=title: dots(values, title)  # type: ignore[misc]
    return found


def _dots(kernels: Kernels, amount: Callable[[KernelTiming], float]) -> Dots:
    """By operation, for the protocols under which it takes anything."""
    return {
        name: found
        for name, by in kernels.operations.items()
        if (found := {protocol: amount(each) / each.elements for protocol, each in by.items() if amount(each)})
    }


def page(kernels: Kernels, figures: dict[str, Drawing]) -> str:
    """The whole page."""
    return "\n\n".join([MADE, prose.TITLE, prose.QUESTION, *_sections(kernels, figures)]) + "\n"


def _sections(kernels: Kernels, figures: dict[str, Drawing]) -> Iterator[str]:
    """Every section that has contents."""
    sections = {
        "## Targets": [prose.extent(kernels), _table(targets.table(kernels)), prose.bound(kernels)],
        "## What an operation sends": [
            prose.COUNTED,
            figure("kernels-bytes", figures),
            _table(operations.counted(kernels)),
        ],
        "## How long it takes": [
            prose.TIMED,
            figure("kernels-microseconds", figures),
            _table(operations.timed(kernels)),
        ],
        "## Every kernel": [prose.EVERY, _table(operations.every(kernels))],
        "## Whole models": [prose.models(kernels), _table(models.table(kernels))],
        "## Truncations": [prose.TRUNCATIONS, _table(exactness.truncations(kernels))],
        "## Accuracy": [prose.ACCURACY, _table(exactness.accuracy(kernels)), prose.missing(kernels)],
        "## How this was measured": [prose.commands(kernels), prose.machine(kernels)],
    }
    return filled(sections)


def _table(table: Table) -> str:
    return tables.render(table, "markdown") if table.rows else ""
