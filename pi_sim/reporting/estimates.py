"""Estimates as people and programs read them. Imports neither torch nor pandas: a known estimate answers at once."""

import json
from typing import Literal

from pi_sim.cost.cost import ZERO, Cost
from pi_sim.cost.estimate import CONVENTIONS, Estimate, View
from pi_sim.reporting import tables
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import BYTES, COUNT, SECONDS, SHARE

Format = Literal["table", "markdown", "csv", "json"]

TITLES: dict[View, str] = {"op": "operation", "layer": "layer", "module": "module", "total": ""}
INNER = "without embedding and head"


def render(estimates: list[Estimate], view: View, style: Format) -> str:
    """One or more estimates of the same view: one after another, or as one tidy table, or as JSON."""
    if style == "json":
        records = [each.to_json() for each in estimates]
        return json.dumps(records[0] if len(records) == 1 else records, indent=2)
    if style == "csv":
        return tables.render(_tidy(estimates, view), "csv")
    sections = [_section(each, view, style) for each in estimates]
    return "\n\n".join([*sections, "\n".join(f"- {sentence}" for sentence in CONVENTIONS)])


def _section(estimate: Estimate, view: View, style: Literal["table", "markdown"]) -> str:
    """A title, the table, and a note on the operations that the table leaves out."""
    title = f"{estimate.model} ({estimate.size}), protocol {estimate.protocol}, {estimate.seq_len:,} tokens"
    gap = "\n\n" if style == "markdown" else "\n"
    heading = f"### {title}" if style == "markdown" else title
    parts = [heading, tables.render(_table(estimate, view), style), _free(estimate)]
    return gap.join(part for part in parts if part)


def _table(estimate: Estimate, view: View) -> Table:
    """What costs something, then the sums with and without what grows with the vocabulary."""
    groups = {} if view == "total" else estimate.by(view)
    rows = [_row(estimate, key, count, cost) for key, (count, cost) in groups.items() if cost != ZERO]
    return Table(_columns(estimate, view), rows, _sums(estimate))


def _tidy(estimates: list[Estimate], view: View) -> Table:
    """Every row of every estimate, each with what it is an estimate of."""
    subject = [Column(key, key) for key in ("model", "size", "protocol", "seq_len")]
    columns = [*subject, *_columns(estimates[0], view)]
    return Table(columns, [row for each in estimates for row in _tidy_rows(each, view)])


def _tidy_rows(estimate: Estimate, view: View) -> list[list[Cell]]:
    rows = [_row(estimate, key, count, cost) for key, (count, cost) in estimate.by(view).items()]
    subject: list[Cell] = [estimate.model, estimate.size, estimate.protocol, estimate.seq_len]
    return [[*subject, *row] for row in (_sums(estimate) if view == "total" else rows)]


def _columns(estimate: Estimate, view: View) -> list[Column]:
    return [
        Column(view, TITLES[view]),
        Column("count", "count", COUNT),
        Column("rounds", "rounds", COUNT),
        Column("bytes", "sent", BYTES),
        Column("share_of_bytes", "sent", SHARE),
        Column("offline_bytes", "offline", BYTES),
        *(Column(f"seconds_{network.name}", network.name, SECONDS) for network in estimate.networks),
    ]


def _sums(estimate: Estimate) -> list[list[Cell]]:
    return [_row(estimate, "total", None, estimate.total), _row(estimate, INNER, None, estimate.inner)]


def _row(estimate: Estimate, key: str, count: int | None, cost: Cost) -> list[Cell]:
    share = cost.bytes / estimate.total.bytes if estimate.total.bytes else 0.0
    return [key, count, cost.rounds, cost.bytes, share, cost.offline, *estimate.seconds(cost).values()]


def _free(estimate: Estimate) -> str:
    """The operations that cost nothing, in one line."""
    names = [op for op, (_, cost) in estimate.by("op").items() if cost == ZERO]
    return f"{', '.join(names)}: local, {'costs' if len(names) == 1 else 'cost'} nothing" if names else ""
