"""Tables of estimates, comparisons and counts. Imports neither torch nor pandas: a cached estimate answers at once."""

import json
from dataclasses import asdict, replace
from string import ascii_uppercase
from typing import Any, Literal

from pi_sim import records
from pi_sim.cost.census import OpCounts
from pi_sim.cost.cost import ZERO_COST
from pi_sim.cost.estimate import Estimate, describe_tokens
from pi_sim.cost.rows import Subtotal, View
from pi_sim.cost.savings import Saving
from pi_sim.errors import UsageError
from pi_sim.records import EstimateRecord
from pi_sim.report import tables
from pi_sim.report.tables import BYTES, COUNT, RATIO, SECONDS, SHARE, Format, Table, Units, tabulate
from pi_sim.results import DETAILS
from pi_sim.zoo.source import ModelSource

TITLES: dict[View, str] = {"op": "operation", "layer": "layer", "module": "module", "total": ""}
INNER = "without embedding and head"
SCENARIO = ("model", "size", "protocol", "seq_len", "batch", "past", "generate")


def number_columns(estimates: list[Estimate], everything: bool = False) -> dict[str, tuple[str, Units]]:
    """Return title and units of each number; the title of seconds says so where computing is left out.

    With `everything`, also what each party sends, and what precedes the input.
    """
    complete = all(estimate.compute_seconds(estimate.overall) is not None for estimate in estimates)
    titles = {network.name: "" if complete else "\nnetwork\nonly" for network in estimates[0].networks}
    columns: dict[str, tuple[str, Units]] = {
        "rounds": ("rounds", COUNT),
        "bytes": ("sent", BYTES),
        "server_bytes": ("sent by\nserver", BYTES),
        "client_bytes": ("sent by\nclient", BYTES),
        "ahead_bytes": ("ahead", BYTES),
        "session_bytes": ("session", BYTES),
        "offline_bytes": ("offline", BYTES),
        "compute_seconds": ("computing", SECONDS),
        **{f"seconds_{name}": (name + suffix, SECONDS) for name, suffix in titles.items()},
        **{f"first_query_seconds_{name}": (f"first query\n{name}", SECONDS) for name in titles},
    }
    return columns if everything else {key: column for key, column in columns.items() if not key.startswith(DETAILS)}


def render_estimates(
    estimates: list[Estimate], view: View, style: Format, top: int | None = None, shares: bool = False
) -> str:
    """Render estimates of the same view: one after another, or as one tidy table, or as JSON.

    With `top` the most expensive rows, and the others together; JSON holds every row, whatever the view.
    A table for a terminal has the columns of percentages only with `shares`.
    """
    if style == "json":
        stamped = [records.stamp(EstimateRecord.model_validate(estimate.to_json())) for estimate in estimates]
        return records.dumps(stamped[0] if len(stamped) == 1 else stamped).rstrip()
    if style == "csv":
        tidy: list[dict[str, Any]] = []
        for estimate in estimates:
            rows = _closing_rows(estimate) if view == "total" else _rows(estimate, estimate.group_by(view), top)
            tidy += [{**{key: getattr(estimate, key) for key in SCENARIO}, **row} for row in rows]
        columns = {key: key for key in SCENARIO} | _columns(estimates, view, everything=True)
        return tables.render(tabulate(tidy, columns), "csv")
    sections = []
    for estimate in estimates:
        # Columns of what is unknown are left out.
        unknown = {key for key, number in estimate.numbers(estimate.overall).items() if number is None}
        columns = _columns([estimate], view, shares or style != "table")
        columns = {key: columns[key] for key in columns if key.removeprefix("share_of_") not in unknown}
        table = tabulate(_rows(estimate, _parts(estimate, view), top), columns, totals=_closing_rows(estimate))
        sections.append(_section([estimate], table))
    return _render(sections, estimates, style)


def _section(estimates: list[Estimate], table: Table) -> dict[str, Any]:
    """Return a table, its estimates, the operations that are free in all of them, and those with declared prices."""
    rows = [row for estimate in estimates for row in estimate.rows]
    costly = [row for row in rows if row.cost != ZERO_COST]
    charged = {row.op for row in costly}
    free = dict.fromkeys(row.op for row in rows if row.op not in charged)
    declared: dict[str, dict[str, None]] = {}
    for row in costly:
        if row.provenance != "derived":
            declared.setdefault(row.provenance, {})[row.op] = None
    return {"estimates": estimates, "table": table, "free": list(free), "declared": declared}


def _render(sections: list[dict[str, Any]], estimates: list[Estimate], style: Literal["table", "markdown"]) -> str:
    """Render sections and, below them, the definitions of the numbers of all estimates."""
    names = {"letters": ascii_uppercase, "label_protocol": tables.label_protocol, "describe_tokens": describe_tokens}
    names["conventions"] = dict.fromkeys(sentence for estimate in estimates for sentence in estimate.conventions)
    return tables.render_template("estimates.txt.j2", style, sections=sections, estimates=estimates, **names)


def _sums(estimate: Estimate) -> dict[str, Subtotal]:
    """Return the closing rows: the total, unless embedding and head are left out, and what lies between these."""
    return ({} if estimate.only_inner else {"total": estimate.overall}) | {INNER: estimate.body}


def _parts(estimate: Estimate, view: View) -> dict[str, Subtotal]:
    """Return the rows that cost something."""
    parts = {} if view == "total" else estimate.group_by(view)
    return {key: part for key, part in parts.items() if part.cost != ZERO_COST}


def _columns(estimates: list[Estimate], view: View, shares: bool = True, everything: bool = False) -> dict[str, Any]:
    """Return the columns of a view; with `shares`, rounds and bytes have their share of the total beside them."""
    columns: dict[str, Any] = {view: TITLES[view], "count": ("count", COUNT)}
    for key, (title, units) in number_columns(estimates, everything).items():
        columns[key] = (title, units)
        if shares and units != SECONDS and not key.startswith(DETAILS):
            columns[f"share_of_{key}"] = (title, SHARE)
    return columns


def _rows(estimate: Estimate, parts: dict[str, Subtotal], top: int | None) -> list[dict[str, Any]]:
    """Build a row for each part; with `top` the most expensive ones, and all others as one."""
    total, rows = estimate.numbers(estimate.overall), list[dict[str, Any]]()
    for key, part in (parts if top is None else estimate.top_groups(parts, top)).items():
        numbers = estimate.numbers(part)
        shares = {f"share_of_{name}": _ratio(value, total[name] or 1) for name, value in numbers.items()}
        rows.append({**dict.fromkeys(TITLES, key), "count": part.count, **numbers, **shares})
    return rows


def _closing_rows(estimate: Estimate) -> list[dict[str, Any]]:
    """Build the sums; operations of different kinds are not counted together."""
    return [{**row, "count": None} for row in _rows(estimate, _sums(estimate), None)]


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def render_comparison(estimates: list[Estimate], view: View, style: Format) -> str:
    """Render two or more estimates in one table; as CSV or JSON with every number of each, against the first's."""
    compared = check_comparable(estimates)
    table = comparison_table(compared, view, everything=style in ("csv", "json"))
    if style == "json":
        keys = [column.key for column in table.columns]
        rows, totals = ([dict(zip(keys, line, strict=True)) for line in lines] for lines in (table.rows, table.totals))
        documents = [estimate.to_json() for estimate in compared]
        return json.dumps({"estimates": documents, "by": view, "rows": rows, "totals": totals}, indent=2)
    if style == "csv":
        return tables.render(Table(table.columns, table.rows or table.totals), "csv")
    return _render([_section(compared, table)], compared, style)


def check_comparable(estimates: list[Estimate]) -> list[Estimate]:
    """Return the estimates, with seconds of computing if all have them; a `UsageError` where lengths differ.

    A single one is refused too.
    """
    if len(estimates) < 2:
        subject = f"{estimates[0].model} stands alone" if estimates else "there is nothing to compare"
        raise UsageError(f"{subject}; name another model, or give --protocol twice.")
    if len(estimates) > len(ascii_uppercase):
        raise UsageError(f"there is no table of {len(estimates)} designs side by side; compare up to 26 of them.")
    if len({estimate.seq_len for estimate in estimates}) > 1:
        lengths = " and ".join(f"{estimate.model} {estimate.seq_len:,}" for estimate in estimates)
        raise UsageError(f"there is no comparing different lengths ({lengths} tokens); choose one --seq-len for all.")
    complete = all(estimate.compute_seconds(estimate.overall) is not None for estimate in estimates)
    return estimates if complete else [replace(estimate, machine=None) for estimate in estimates]


def merge_orders(orders: list[list[str]]) -> list[str]:
    """Return all keys once, a new one ahead of the key that follows it in its own list."""
    merged: list[str] = []
    for order in orders:
        index = len(merged)
        for key in reversed(order):
            if key not in merged:
                merged.insert(index, key)
            index = merged.index(key)
    return merged


def comparison_table(estimates: list[Estimate], view: View, everything: bool) -> Table:
    """Build the rows that cost something, then the sums, each number beside the others' and its ratio to the first.

    A column's name ends with what tells estimates apart; a `UsageError` if neither model nor protocol does.
    """
    varied = [key for key in ("model", "protocol") if len({getattr(estimate, key) for estimate in estimates}) > 1]
    names = ["_".join(getattr(estimate, key) for key in varied) for estimate in estimates]
    if len(set(names)) < len(names):
        protocol = estimates[0].protocol
        raise UsageError(f"two protocols are both called {protocol}; change the name in one of their files.")
    numbers, letters = number_columns(estimates, everything), dict(zip(names, ascii_uppercase, strict=False))
    heads: dict[str, Any] = {view: TITLES[view]}
    for key, (title, units) in numbers.items():
        for name, letter in letters.items() if everything or key not in ("offline_bytes", "compute_seconds") else ():
            heads[f"{key}_{name}"] = (f"{title}\n{letter}", units)
            if letter != "A":
                heads[f"{key}_ratio_{name}"] = (f"{title.partition(chr(10))[0]}\n{letter} / A", RATIO)

    def build_row(key: str, groups: list[dict[str, Subtotal]]) -> dict[str, Any]:
        row: dict[str, Any] = {view: key}
        for name, estimate, parts in zip(names, estimates, groups, strict=True):
            values = estimate.numbers(parts[key]) if key in parts else dict.fromkeys(numbers)
            row |= {f"{number}_{name}": values[number] for number in numbers}
            row |= {f"{number}_ratio_{name}": _ratio(values[number], row[f"{number}_{names[0]}"]) for number in numbers}
        return row

    rows, totals = (
        [build_row(key, groups) for key in merge_orders([list(parts) for parts in groups])]
        for groups in ([_parts(estimate, view) for estimate in estimates], list(map(_sums, estimates)))
    )
    return tabulate(rows, heads, totals=totals)


def render_savings(source: ModelSource, savings: dict[str, list[Saving]], style: Literal["table", "markdown"]) -> str:
    """Render what each pass of every protocol's rewriting saves."""
    sections = [
        {"model": source.name, "size": source.label, "protocol": name, "savings": list(map(asdict, passes))}
        for name, passes in savings.items()
    ]
    return tables.render_template("savings.txt.j2", style, sections=sections)


def render_counts(counts: OpCounts, style: Format) -> str:
    """Render one row for each operation and shape."""
    document = counts.to_json()
    if style == "json":
        return json.dumps(document, indent=2)
    tokens = describe_tokens(counts.seq_len, counts.batch, counts.past, counts.generate)
    return tables.render_template("counts.txt.j2", style, counts=counts, rows=document["operations"], tokens=tokens)
