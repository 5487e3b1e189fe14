"""Published figures beside ours, as people and programs read them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pi_sim.files import write_text
from pi_sim.reporting import tables
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, SHARE
from pi_sim.validation.comparison import Comparison
from pi_sim.validation.validate import Validation

Format = Literal["table", "markdown", "csv", "json"]

PAGE = "validation.md"
FIGURE = "validation.svg"
MADE = "<!-- Made by `pi-sim validate --out reports`: change the prices or the published figures, not this page. -->"
TITLE = "# Our prices beside published figures"
INTRODUCTION = """\
Every figure below was printed by a paper or counted by a system's own counters; beside it stands what our prices say
of the same operations or the same model, counted in the same way. **Fit** rows are those that a sheet's coefficients
were made from, so they show only that the sheet holds them; **check** rows were not used for that. A figure is
*exact* when ours rounds to what was printed, and *missed* when it is off by more than the row's tolerance: such rows
stay, with the reason that we suspect.

Prices are *derived* by running a protocol's own kernels without data, *declared* by a formula of the source, *scaled*
from one size, or *fitted* to several figures."""
CAPTION = (
    "Ours against published, on the identity line where they agree. Hollow: figures that prices were made from. "
    "A cross: missed."
)


def render(validations: list[Validation], style: Format) -> str:
    """All validations: sections and a summary, the page of them, one tidy table, or JSON."""
    if style == "json":
        return json.dumps([record(each) for each in validations], indent=2)
    if style == "csv":
        return tables.render(_tidy(validations), "csv")
    if style == "markdown":
        return page(validations)
    sections = [part for each in validations for part in (each.publication.title, *_section(each, style))]
    return "\n".join([*sections, "", _summary(validations, style)])


def report(validations: list[Validation], out: Path) -> list[Path]:
    """Write the page and its figure; what was written."""
    from pi_sim.reporting.figures.style import svg
    from pi_sim.reporting.figures.validation import scatter

    write_text(out / "figures" / FIGURE, svg(lambda: scatter(validations)))
    write_text(out / PAGE, page(validations) + "\n")
    return [out / "figures" / FIGURE, out / PAGE]


def page(validations: list[Validation]) -> str:
    """The page without a final line break."""
    figure = f"![{CAPTION.split('.')[0]}](figures/{FIGURE})\n\n*{CAPTION}*"
    parts = [MADE, TITLE, INTRODUCTION, _summary(validations, "markdown"), figure]
    for each in validations:
        publication = each.publication
        heading = f"## {publication.title}"
        parts += [heading, f"<{publication.url}>. {publication.note}".strip(), *_section(each, "markdown")]
    return "\n\n".join(parts)


def record(validation: Validation) -> dict[str, Any]:
    """A publication and its figures."""
    publication = validation.publication
    rows = [dict(zip([column.key for column in COLUMNS], line, strict=True)) for line in _lines(validation)]
    return {"source": validation.name, "title": publication.title, "url": publication.url, "rows": rows}


COLUMNS = [
    Column("source", "source"),
    Column("row", "row"),
    Column("table", "table"),
    Column("protocol", "protocol"),
    Column("figure", "figure"),
    Column("published", "published"),
    Column("ours", "ours"),
    Column("unit", "unit"),
    Column("counted", "counted"),
    Column("error", "error"),
    Column("provenance", "prices"),
    Column("role", "role"),
    Column("tolerance", "tolerance"),
    Column("verdict", "verdict"),
    Column("reason", "suspected reason"),
]
"""What programs get of each figure."""


FAR = 0.01


def _tidy(validations: list[Validation]) -> Table:
    return Table(COLUMNS, [line for each in validations for line in _lines(each)])


def _lines(validation: Validation) -> Iterator[list[Cell]]:
    for each in validation.comparisons:
        claim = each.claim
        yield [
            validation.name, claim.name, claim.source, claim.protocol, each.quantity, each.published, each.ours,
            _unit(each), claim.counted, each.error, each.provenance, claim.role, each.tolerance, each.verdict,
            claim.reason,
        ]  # fmt: skip


def _section(validation: Validation, style: Literal["table", "markdown"]) -> list[str]:
    """The table, and what is to be said of single rows."""
    numeric = ("published", "ours", "error")
    names = ("row", "figure", *numeric, "tolerance", "prices", "role", "verdict")
    columns = [Column(name, name, COUNT if name in (*numeric, "tolerance") else ()) for name in names]
    rows = [_row(each) for each in validation.comparisons]
    remarks = "\n".join(f"- {remark}" for remark in _remarks(validation))
    return [part for part in (tables.render(Table(columns, rows), style), remarks) if part]


def _row(each: Comparison) -> list[Cell]:
    claim = each.claim
    shown = [f"{number:,.{each.decimals}f} {_unit(each)}".strip() for number in (each.published, each.ours)]
    judged = [f"{each.error:+z.2%}", f"{each.tolerance:.2%}", each.provenance, claim.role, each.verdict]
    return [claim.name, each.quantity, *shown, *judged]


def _unit(each: Comparison) -> str:
    return {"rounds": "", "seconds": "s"}.get(each.quantity, each.claim.unit)


def _remarks(validation: Validation) -> Iterator[str]:
    """Suspected reasons of what is off by more than one in a hundred, and what of the seconds is no prediction."""
    far = {each.claim.name: each.claim.reason for each in validation.comparisons if abs(each.error) > FAR}
    for name, reason in far.items():
        yield f"{name}: {reason or 'no reason is known'}."
    computing = {each.computing: None for each in validation.comparisons if each.computing is not None}
    for seconds in computing:
        yield f"seconds are the network's and {seconds:,.1f} s of computing, which the row of role fit leaves."


def _summary(validations: list[Validation], style: Literal["table", "markdown"]) -> str:
    """One line for each publication, and all together."""
    titles = ("figures", "fitted", "checked", "exact", "within tolerance", "missed")
    columns = [Column("source", "source"), *(Column(title, title, COUNT) for title in titles)]
    columns.append(Column("largest", "largest error met", SHARE))
    counts = [_counts(each) for each in validations]
    rows: list[list[Cell]] = [
        [each.name, *count, each.largest] for each, count in zip(validations, counts, strict=True)
    ]
    total: list[Cell] = ["all", *(sum(column) for column in zip(*counts, strict=True)), None]
    return tables.render(Table(columns, rows, [total]), style)


def _counts(validation: Validation) -> list[int]:
    figures, checks = len(validation.comparisons), len(validation.checks)
    verdicts = [validation.count(verdict) for verdict in ("exact", "within tolerance", "missed")]
    return [figures, figures - checks, checks, *verdicts]
