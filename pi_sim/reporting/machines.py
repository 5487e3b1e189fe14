"""A machine's profile as people and programs read it."""

import json

from pi_sim.cost.machine import Machine
from pi_sim.reporting import tables
from pi_sim.reporting.estimates import Format
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import Unit

MEANING = {
    "macs": "multiply-accumulate of a matrix product in the ring",
    "elements": "element of 64 bits that another operation writes",
    "random": "byte of randomness",
    "calls": "call of an operation on tensors",
    "tuples": "tuple that CrypTen asks for, besides its calls",
    "rounds": "exchange of a small message over the loopback",
}
COLUMNS = [
    Column("unit", "unit"),
    Column("meaning", "one"),
    Column("seconds", "takes", (Unit(0, "ns", 1e-9, 2),)),
]


def render(machine: Machine, style: Format) -> str:
    """One row for each unit; in a table with the machine's name as its title."""
    if style == "json":
        return json.dumps(machine.model_dump(), indent=2)
    each = machine.seconds_each.model_dump()
    rows: list[list[Cell]] = [[unit, meaning, each[unit]] for unit, meaning in MEANING.items()]
    table = tables.render(Table(COLUMNS, rows), style)
    return table if style == "csv" else f"{machine.name}; {machine.source}\n\n{table}"
