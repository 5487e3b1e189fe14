"""Tables for a terminal, for Markdown and as CSV, and the units of their numbers. Imports neither torch nor pandas."""

import csv
import io
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment


Cell = str | int | float | None
"""Text stands as it is, also in a column of numbers; None is an empty cell."""
LEGIBLE = 12  # a column of text is folded to no less than this


@dataclass(frozen=True)
class Unit:
    """A unit for numbers of which the largest is at least `start`."""

    start: float
    name: str
    divisor: float
    decimals: int

    def show(self, value: float) -> str:
        """Format a number; one that would round to zero is shown as less than the last decimal."""
        scaled, smallest = value / self.divisor, 10.0**-self.decimals
        if scaled and abs(scaled) < smallest / 2:
            return f"<{smallest:.{self.decimals}f}"
        return f"{scaled:,.{self.decimals}f}"


Units = tuple[Unit, ...]
Formatter = Callable[[Any], str]
Format = Literal["table", "markdown", "csv", "json"]

TEXT: Units = ()
COUNT: Units = (Unit(0, "", 1, 0),)
RATIO: Units = (Unit(0, "", 1, 2),)
SHARE: Units = (Unit(0, "%", 0.01, 1),)
BYTES: Units = (Unit(1e10, "GB", 1e9, 2), Unit(1e6, "MB", 1e6, 2), Unit(1e3, "kB", 1e3, 2), Unit(0, "B", 1, 0))
SECONDS: Units = (Unit(1e3, "s", 1, 1), Unit(1e2, "s", 1, 2), Unit(1, "s", 1, 3), Unit(0, "ms", 1e-3, 1))


def choose_unit(units: Units, values: list[float]) -> Unit:
    """Return the first unit, of those listed from large to small, that suits the largest of some values."""
    largest = max(values, default=0)
    return next((unit for unit in units if largest >= unit.start), units[-1])


def label_protocol(name: str) -> str:
    """Return the label of a protocol beside published ones."""
    return f"{name} (ours)" if name == "lean" else name


def format_quantity(value: float, units: Units) -> str:
    """Format a number with its unit, to three digits, for running text."""
    unit = choose_unit(units, [value])
    scaled = value / unit.divisor
    return f"{scaled:,.0f} {unit.name}" if scaled >= 1000 else f"{scaled:.3g} {unit.name}"


def format_perplexity(value: float | None) -> str:
    """Format a perplexity; None and infinity are an overflow."""
    if value is None or math.isinf(value):
        return "beyond all numbers"
    if math.isnan(value):
        return "not a number"
    return f"{value:.2f}" if value < 10_000 else f"{value:.1e}"


def format_change(value: float, reference: float) -> str:
    """Format a relative change with its sign; a dash where a value is not finite."""
    return f"{value / reference - 1:+.1%}" if math.isfinite(value) and math.isfinite(reference) else "–"


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

    def text(self, gap: str) -> list[list[str]]:
        """Return the header and every line as text, with a gap between a column's title and its unit."""
        chosen = [self._unit(column.units) for column in self.columns]
        header = [
            gap.join([*column.title.split("\n"), *([unit.name] if unit and unit.name else [])])
            for column, unit in zip(self.columns, chosen, strict=True)
        ]
        return [header, *(list(map(_show, line, chosen)) for line in self.rows + self.totals)]

    def _unit(self, units: Units) -> Unit | None:
        """Choose one unit for all columns of a kind, so that they can be compared; None for columns of text."""
        pairs = (pair for line in self.rows + self.totals for pair in zip(line, self.columns, strict=True))
        numbers = [cell for cell, column in pairs if column.units == units and isinstance(cell, (int, float))]
        return choose_unit(units, numbers) if units else None


def _show(cell: Cell, unit: Unit | None) -> str:
    text = "" if cell is None else str(cell)
    return text if unit is None or cell is None or isinstance(cell, str) else unit.show(cell)


def tabulate(
    rows: "pd.DataFrame | Iterable[Mapping[str, Any]]",
    columns: Mapping[str, str | tuple[str, Units | Formatter]],
    missing: str = "",
    optional: Iterable[str] = (),
    totals: Iterable[Mapping[str, Any]] = (),
) -> Table:
    """Build a table from a data frame or from records.

    `columns` gives each key its title, with units or a formatter if it holds numbers. None and NaN become `missing`;
    an `optional` column is left out where the first row lacks it.
    """
    lines, closing = list(getattr(rows, "to_dict", lambda _: rows)("records")), list(totals)
    chosen = {key: spec for key, spec in columns.items() if key not in optional or (lines and key in lines[0])}
    specs = {key: (spec, TEXT) if isinstance(spec, str) else spec for key, spec in chosen.items()}
    heads = [Column(key, title, COUNT if callable(shown) else shown) for key, (title, shown) in specs.items()]
    cells = [[_cell(line[key], shown, missing) for key, (_, shown) in specs.items()] for line in [*lines, *closing]]
    return Table(heads, cells[: len(lines)], cells[len(lines) :])


def _cell(value: Any, shown: Units | Formatter, missing: str) -> Cell:
    """Format one value, or leave it to the unit that its column will choose."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return missing or None
    return shown(value) if callable(shown) and not isinstance(value, str) else value


def render(table: Table, style: Format) -> str:
    """Render a table as text without a final line break."""
    if style == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([[column.key for column in table.columns], *table.rows, *table.totals])
        return text.getvalue().rstrip("\n")
    return _terminal(table) if style == "table" else _markdown(table)


def _terminal(table: Table) -> str:
    """Draw a box as wide as it needs to be; on a narrow terminal its text is folded, its numbers never.

    Numbers stand to the right, closing rows below a rule.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    on_terminal = sys.stdout.isatty()
    columns = ["\n".join(cells).split("\n") for cells in zip(*table.text("\n"), strict=True)]
    widths = [max(map(len, cells)) for cells in columns]
    width = sum(widths) + 3 * len(widths) + 1
    if on_terminal:
        texts = [size for size, column in zip(widths, table.columns, strict=True) if not column.units]
        narrowest = width - sum(max(0, size - LEGIBLE) for size in texts)
        width = min(width, max(shutil.get_terminal_size().columns, narrowest))
    grid = RichTable(box=box.ROUNDED, border_style="dim", header_style="bold")
    header, *lines = table.text("\n")
    for title, column in zip(header, table.columns, strict=True):
        numeric = bool(column.units)
        grid.add_column(title, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for number, line in enumerate(lines, start=1):
        closing = number > len(table.rows)
        grid.add_row(*line, style="bold" if closing else "", end_section=number == len(table.rows))
    console = Console(width=width, force_terminal=on_terminal, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(grid)
    return captured.get().rstrip("\n")


def _markdown(table: Table) -> str:
    """Write a pipe table, padded so that it also reads well as plain text."""
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


def render_template(name: str, style: Literal["table", "markdown"], **values: Any) -> str:
    """Render a template of the folder templates; its parts are set apart by one empty line at most."""
    text = _environment().get_template(name).render(style=style, **values)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@cache
def _environment() -> "Environment":
    """Return Jinja's environment; an undefined name in a template is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pi_sim.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        table=_table_filter,
        perplexity=format_perplexity,
        quantity=format_quantity,
        unwrap=unwrap,
        thousands="{:,}".format,
    )
    environment.globals.update(count=COUNT, bytes=BYTES, seconds=SECONDS, share=SHARE, ratio=RATIO)
    environment.globals.update(perplexity=format_perplexity, unit=lambda *unit: (Unit(0, *unit),))
    return environment


def _table_filter(
    rows: Any, style: Format, missing: str = "", optional: tuple[str, ...] = (), totals: Any = (), **columns: Any
) -> str:
    """Render a table, or records with a title, or a title and units or a formatter, for each column."""
    table = rows if isinstance(rows, Table) else tabulate(rows, columns, missing, optional, totals)
    return render(table, style) if table.rows else ""


def unwrap(text: str) -> str:
    """Join the lines of each paragraph and list item; headings, tables, figures and code stay as they are."""
    blocks = re.split(r"\n{2,}", text.strip())
    verbatim = ("```", "|", "#", "!")
    return "\n\n".join(b if b.startswith(verbatim) else re.sub(r"\s*\n(?!- )\s*", " ", b) for b in blocks)
