"""Tables for a terminal, for Markdown and as CSV, and the units of their numbers. Imports neither torch nor pandas."""

import csv
import io
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment


Cell = str | int | float | None
"""Text stands as it is, also in a column of numbers; None is an empty cell."""
LEGIBLE = 10  # a column of text is folded to no less than this
LONG_WORD = 16  # a longer word can be cut


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
    return f"{name} (ours)" if name.startswith("lean") else name


def format_quantity(value: float, units: Units) -> str:
    """Format a number with its unit, to three digits, for running text."""
    unit = choose_unit(units, [value])
    scaled = value / unit.divisor
    return f"{scaled:,.0f} {unit.name}" if scaled >= 1000 else f"{scaled:.3g} {unit.name}"


def format_perplexity(value: float | None) -> str:
    """Format a perplexity; None and infinity are an overflow."""
    if value is None or math.isinf(value):
        return "overflow"
    if math.isnan(value):
        return "NaN"
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
        titles = [column.title.replace("\n", gap) for column in self.columns]
        header = [f"{t}{gap}{u.name}" if u and u.name else t for t, u in zip(titles, chosen, strict=True)]
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
    """Draw boxes as wide as they need to be, up to the width of the terminal; closing rows stand below a rule.

    Text is folded and names are shortened, numbers never. Columns beyond the width continue in a box below.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    text, on_terminal = table.text("\n"), sys.stdout.isatty()
    unlimited = sum(len(cell) + 3 for line in text for cell in line)
    console = Console(width=unlimited, force_terminal=on_terminal, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        for widths in _split_columns(table.columns, text, shutil.get_terminal_size().columns):
            grid = RichTable(box=box.ROUNDED, border_style="dim", header_style="bold")
            for i, width in widths.items():
                is_number = bool(table.columns[i].units)
                justify: Literal["left", "right"] = "right" if is_number else "left"
                grid.add_column(text[0][i], justify=justify, width=width, no_wrap=is_number, overflow="fold")
            for number, line in enumerate(text[1:], start=1):
                cells = [line[i] if table.columns[i].units else _shorten(line[i], widths[i]) for i in widths]
                is_closing, is_last = number > len(table.rows), number == len(table.rows)
                grid.add_row(*cells, style="bold" if is_closing else "", end_section=is_last)
            console.print(grid)
    return captured.get().rstrip("\n")


def _split_columns(columns: list[Column], text: list[list[str]], available: int) -> list[dict[int, int]]:
    """Return the columns of each box, by number, with their widths.

    Every box repeats the first column and the text beside it. Columns whose titles begin alike stay in one box if
    they fit.
    """
    cells = list(zip(*text, strict=True))
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in cells]
    least = [
        width if column.units else _narrowest(texts[1:], width)
        for column, texts, width in zip(columns, cells, widths, strict=True)
    ]
    leading = next((i for i, column in enumerate(columns) if i and column.units), len(columns))
    boxes = [list(range(leading))]
    for _, group in groupby(range(leading, len(columns)), key=lambda i: columns[i].title.partition("\n")[0]):
        members = list(group)
        fits = _box_width(least[i] for i in [*range(leading), *members]) <= available
        for part in [members] if fits else [[i] for i in members]:
            if len(boxes[-1]) > leading and _box_width(least[i] for i in [*boxes[-1], *part]) > available:
                boxes.append(list(range(leading)))
            boxes[-1] += part
    return [_fit_widths({i: widths[i] for i in members}, least, available) for members in boxes]


def _fit_widths(widths: dict[int, int], least: list[int], available: int) -> dict[int, int]:
    """Narrow the widest columns of text until the box fits, or none can be narrower."""
    while _box_width(widths.values()) > available and (wide := [i for i in widths if widths[i] > least[i]]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _box_width(widths: Iterable[int]) -> int:
    return 1 + sum(width + 3 for width in widths)


def _narrowest(cells: Iterable[str], width: int) -> int:
    """Return the width that leaves shortened names different and cuts no word of a sentence, unless it is long."""
    words = [len(word) for cell in cells if " " in cell for word in cell.split()]
    start = max([LEGIBLE, *(size for size in words if size <= LONG_WORD)])
    different = (n for n in range(start, width) if len({_shorten(cell, n) for cell in cells}) == len(set(cells)))
    return next(different, width)


def _shorten(name: str, width: int) -> str:
    """Shorten a name in the middle; text of several words can be folded instead."""
    if len(name) <= width or " " in name:
        return name
    return f"{name[: width // 4]}…{name[width // 4 + 1 - width :]}"


def fold(text: str, style: Format) -> str:
    """Fold prose for a terminal at its width, with items and labels hanging; tables fit already."""
    width, lines = shutil.get_terminal_size().columns, []
    for line in text.split("\n"):
        if style == "table" and len(line) > width and line[0] not in "╭│├╰\x1b":
            label = re.match(r"- |\w+ {2,}|", line)
            indent = " " * (label.end() if label else 0)
            line = textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
        lines.append(line)
    return "\n".join(lines)


def _markdown(table: Table) -> str:
    """Write a pipe table, padded so that it also reads well as plain text."""
    text = [[cell.replace("|", "\\|") for cell in line] for line in table.text(" ")]
    widths = [max(3, *map(len, column)) for column in zip(*text, strict=True)]
    sides = [(width, ">" if column.units else "<") for width, column in zip(widths, table.columns, strict=True)]
    header, *lines = ([f"{c:{side}{width}}" for c, (width, side) in zip(line, sides, strict=True)] for line in text)
    rule = ["-" * (width - 1) + (":" if side == ">" else "-") for width, side in sides]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])


def render_template(name: str, style: Literal["table", "markdown", "csv"], **values: Any) -> str:
    """Render a template of the folder templates; its parts are set apart by one empty line at most."""
    text = _environment().get_template(name).render(style=style, **values)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return fold(text, style)


@cache
def _environment() -> "Environment":
    """Return Jinja's environment; an undefined name in a template is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pi_sim.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"table": _table_filter, "perplexity": format_perplexity, "quantity": format_quantity}
    environment.filters |= {"unwrap": unwrap, "thousands": "{:,}".format}
    environment.globals.update(count=COUNT, bytes=BYTES, seconds=SECONDS, share=SHARE, ratio=RATIO)
    environment.globals.update(perplexity=format_perplexity, unit=lambda *unit: (Unit(0, *unit),))
    return environment


def _table_filter(
    rows: Any, style: Format, missing: str = "", optional: tuple[str, ...] = (), totals: Any = (), **columns: Any
) -> str:
    """Render a table, or records with a title, or a title and units or a formatter, for each column."""
    table = rows if isinstance(rows, Table) else tabulate(rows, columns, missing, optional, totals)
    return render(table, style) if table.rows or table.totals else ""


def unwrap(text: str) -> str:
    """Join the lines of each paragraph and list item; headings, tables, figures and code stay as they are."""
    blocks = re.split(r"\n{2,}", text.strip())
    verbatim = ("```", "|", "#", "!")
    return "\n\n".join(b if b.startswith(verbatim) else re.sub(r"\s*\n(?!- )\s*", " ", b) for b in blocks)
