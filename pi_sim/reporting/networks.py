"""The named networks as people and programs read them."""

import json

from pi_sim.network import PRESETS
from pi_sim.reporting import tables
from pi_sim.reporting.estimates import Format
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import Unit

COLUMNS = [
    Column("name", "network"),
    Column("round_trip_seconds", "round trip", (Unit(0, "ms", 1e-3, 1),)),
    Column("bits_per_second", "bandwidth", (Unit(0, "Mbps", 1e6, 0),)),
    Column("source", "source"),
]


def render(style: Format) -> str:
    """One row for each."""
    rows: list[list[Cell]] = [[each.name, 2 * each.latency, each.bandwidth, each.source] for each in PRESETS.values()]
    if style == "json":
        keys = [column.key for column in COLUMNS]
        return json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2)
    return tables.render(Table(COLUMNS, rows), style)
