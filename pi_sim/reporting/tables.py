"""Tables: columns and rows, rendered for a terminal, for Markdown or as CSV."""

import csv
import io
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pi_sim.reporting.units import TEXT, Unit, Units, fitting

if TYPE_CHECKING:
    from rich.table import Table as Grid

Format = Literal["table", "markdown", "csv"]
Cell = str | int | float | None
"""Text stands as it is, also in a column of numbers; None is an empty cell."""
LEGIBLE = 12
"""A column of text is folded to no less than this."""


@dataclass(frozen=True)
class Column:
    """A column: its name for programs, its title for people, in lines, and the units its numbers are shown in."""

    key: str
    title: str
    units: Units = TEXT


@dataclass(frozen=True)
class Table:
    """Columns, rows, and closing rows that are set apart from the others."""

    columns: list[Column]
    rows: list[list[Cell]]
    totals: list[list[Cell]] = field(default_factory=list)

    @property
    def lines(self) -> list[list[Cell]]:
        """All rows."""
        return self.rows + self.totals

    def text(self, gap: str) -> list[list[str]]:
        """The header and every line as people read them, with a gap between a column's title and its unit."""
        chosen = [self._unit(column.units) for column in self.columns]
        header = [
            gap.join([*column.title.split("\n"), *([unit.name] if unit and unit.name else [])])
            for column, unit in zip(self.columns, chosen, strict=True)
        ]
        return [header, *([_show(cell, unit) for cell, unit in zip(line, chosen, strict=True)] for line in self.lines)]

    def _unit(self, units: Units) -> Unit | None:
        """One unit for all columns of a kind, so that they can be compared too; None for columns of text."""
        pairs = (pair for line in self.lines for pair in zip(line, self.columns, strict=True))
        numbers = [cell for cell, column in pairs if column.units == units and isinstance(cell, (int, float))]
        return fitting(units, numbers) if units else None


def render(table: Table, style: Format) -> str:
    """The table as text without a final line break."""
    return {"table": _terminal, "markdown": _markdown, "csv": _csv}[style](table)


def _show(cell: Cell, unit: Unit | None) -> str:
    if cell is None:
        return ""
    return str(cell) if unit is None or isinstance(cell, str) else unit.show(cell)


def _terminal(table: Table) -> str:
    """A box as wide as it needs to be; on a narrow terminal its text is folded, its numbers never."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    width = _width(table, shutil.get_terminal_size().columns if on_terminal else None)
    console = Console(width=width, force_terminal=on_terminal, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(_grid(table))
    return captured.get().rstrip("\n")


def _width(table: Table, available: int | None) -> int:
    """The box's natural width, or the available one as long as that leaves the columns of text legible."""
    columns = ["\n".join(cells).split("\n") for cells in zip(*table.text("\n"), strict=True)]
    widths = [max(map(len, cells)) for cells in columns]
    natural = sum(widths) + 3 * len(widths) + 1
    if available is None:
        return natural
    texts = [width for width, column in zip(widths, table.columns, strict=True) if not column.units]
    narrowest = natural - sum(max(0, width - LEGIBLE) for width in texts)
    return min(natural, max(available, narrowest))


def _grid(table: Table) -> "Grid":
    """The table as rich draws it: numbers to the right, closing rows below a line of their own."""
    from rich import box
    from rich.table import Table as Grid

    header, *lines = table.text("\n")
    grid = Grid(box=box.ROUNDED, border_style="dim", header_style="bold")
    for title, column in zip(header, table.columns, strict=True):
        numeric = bool(column.units)
        grid.add_column(title, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for number, line in enumerate(lines, start=1):
        closing = number > len(table.rows)
        grid.add_row(*line, style="bold" if closing else "", end_section=number == len(table.rows))
    return grid


def _markdown(table: Table) -> str:
    """A pipe table, padded so that it also reads well as plain text."""
    text = table.text(" ")
    widths = [max(3, *map(len, column)) for column in zip(*text, strict=True)]
    rights = [bool(column.units) for column in table.columns]
    rule = ["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, rights, strict=True)]
    header, *lines = [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, rights, strict=True)
        ]
        for line in text
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])


def _csv(table: Table) -> str:
    """Numbers as they are, under the columns' keys."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows(table.lines)
    return text.getvalue().rstrip("\n")
