"""Counts of operations as people and programs read them."""

import json

from pi_sim.cost.counts import Counts
from pi_sim.reporting import tables
from pi_sim.reporting.estimates import Format, section, tokens
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT

COLUMNS = [
    Column("op", "operation"),
    Column("count", "count", COUNT),
    Column("shape", "of shape"),
    Column("multiplications", "multiplications", COUNT),
]


def render(counts: Counts, style: Format) -> str:
    """One row for each operation and shape."""
    if style == "json":
        return json.dumps(counts.to_json(), indent=2)
    rows: list[list[Cell]] = [[each.op, each.count, each.shape, each.multiplications] for each in counts.operations]
    if style == "csv":
        return tables.render(Table(COLUMNS, rows), "csv")
    total: list[Cell] = ["total", None, "", counts.multiplications]
    asked = tokens(counts.seq_len, counts.batch, counts.past)
    return section(f"{counts.model} ({counts.size}), {asked}", Table(COLUMNS, rows, [total]), [], style)
