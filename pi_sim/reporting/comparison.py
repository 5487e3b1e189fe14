"""Designs or protocols side by side, each against the first of them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from pi_sim.cost.cost import ZERO
from pi_sim.cost.estimate import Estimate
from pi_sim.cost.rows import Part, View
from pi_sim.errors import UsageError
from pi_sim.reporting import tables
from pi_sim.reporting.estimates import TITLES, Format, conventions, free, once, subject, sums
from pi_sim.reporting.measures import COMPUTING, OFFLINE, ROUNDS, SENT, Measure, seconds
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import RATIO


def render(estimates: list[Estimate], view: View, style: Format) -> str:
    """Two or more estimates in one table; as CSV or JSON with every number of each, against the first's."""
    compared = comparable(estimates)
    if style == "json":
        return json.dumps(_record(compared, view), indent=2)
    if style == "csv":
        whole = _table(compared, view, _everything(compared))
        return tables.render(Table(whole.columns, whole.rows or whole.totals), "csv")
    legend = [f"{letter}: {subject(each)}" for letter, each in zip(ascii_uppercase, compared, strict=False)]
    gap, mark = ("\n\n", "- ") if style == "markdown" else ("\n", "")
    drawn = tables.render(_table(compared, view, _legible(compared)), style)
    kept = [f"{letter}: {once(each)}" for letter, each in zip(ascii_uppercase, compared, strict=False) if each.session]
    section = gap.join(["\n".join(mark + line for line in legend), drawn, *free(compared), *kept])
    return "\n\n".join([section, conventions(compared)])


def comparable(estimates: list[Estimate]) -> list[Estimate]:
    """The estimates, with seconds of computing if all have them; a `UsageError` where they do not go side by side."""
    if len(estimates) > len(ascii_uppercase):
        raise UsageError(f"there is no table of {len(estimates)} designs side by side; compare up to 26 of them.")
    lengths = {each.seq_len for each in estimates}
    if len(lengths) > 1:
        found = " and ".join(f"{each.model} {each.seq_len:,}" for each in estimates)
        raise UsageError(f"there is no comparing different lengths ({found} tokens); choose one --seq-len for all.")
    known = all(each.computing(each.whole) is not None for each in estimates)
    return estimates if known else [replace(each, machine=None) for each in estimates]


def names(estimates: list[Estimate]) -> list[str]:
    """What tells the subjects apart, the model, the protocol or both; a `UsageError` if these do not."""
    varied = [key for key in ("model", "protocol") if len({getattr(each, key) for each in estimates}) > 1]
    found = ["_".join(getattr(each, key) for key in varied) for each in estimates]
    if len(set(found)) < len(found):
        raise UsageError(
            f"two protocols are both called {estimates[0].protocol}; change the name in one of their files."
        )
    return found


def merged(orders: list[list[str]]) -> list[str]:
    """All keys once, each new one ahead of the key that it precedes where it stands."""
    found: list[str] = []
    for order in orders:
        place = len(found)
        for key in reversed(order):
            if key not in found:
                found.insert(place, key)
            place = found.index(key)
    return found


def _legible(estimates: list[Estimate]) -> list[Measure]:
    """What a table has room for."""
    return [ROUNDS, SENT, *seconds(estimates)]


def _everything(estimates: list[Estimate]) -> list[Measure]:
    return [ROUNDS, SENT, OFFLINE, COMPUTING, *seconds(estimates)]


def _table(estimates: list[Estimate], view: View, measures: list[Measure]) -> Table:
    """The rows that cost something, then the sums."""
    parts = [{key: part for key, part in each.by(view).items() if part.cost != ZERO} for each in estimates]
    rows = [] if view == "total" else _lines(estimates, parts, measures)
    columns = [Column(view, TITLES[view]), *_columns(names(estimates), measures)]
    return Table(columns, rows, _lines(estimates, [sums(each) for each in estimates], measures))


def _lines(estimates: list[Estimate], groups: list[dict[str, Part]], measures: list[Measure]) -> list[list[Cell]]:
    """A line for every key that some subject has."""
    keys = merged([list(parts) for parts in groups])
    return [[key, *_cells(estimates, [parts.get(key) for parts in groups], measures)] for key in keys]


def _cells(estimates: list[Estimate], parts: list[Part | None], measures: list[Measure]) -> Iterator[Cell]:
    """Each measure of each subject, and behind all but the first what multiple of the first it is."""
    for measure in measures:
        found = [measure.read(each, part) if part else None for each, part in zip(estimates, parts, strict=True)]
        for index, number in enumerate(found):
            yield number
            if index:
                yield number / found[0] if number is not None and found[0] else None


def _columns(subjects: list[str], measures: list[Measure]) -> Iterator[Column]:
    """The columns of these cells."""
    for measure in measures:
        key, title, units = measure.column.key, measure.column.title, measure.column.units
        for index, (letter, name) in enumerate(zip(ascii_uppercase, subjects, strict=False)):
            yield Column(f"{key}_{name}", f"{title}\n{letter}", units)
            if index:
                yield Column(f"{key}_ratio_{name}", f"{letter} / A", RATIO)


def _record(estimates: list[Estimate], view: View) -> dict[str, Any]:
    """The estimates, and the table with its columns' keys."""
    table = _table(estimates, view, _everything(estimates))
    keys = [column.key for column in table.columns]
    rows, totals = ([dict(zip(keys, line, strict=True)) for line in lines] for lines in (table.rows, table.totals))
    return {"estimates": [each.to_json() for each in estimates], "by": view, "rows": rows, "totals": totals}
