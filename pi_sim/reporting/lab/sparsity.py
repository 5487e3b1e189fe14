"""Exact zeros, and what they would save where they may be seen."""

from statistics import fmean

from pi_sim.records import JsonObject
from pi_sim.reporting import tables
from pi_sim.reporting.lab.findings import Lab
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import SHARE

COLUMNS = [
    Column("model", "model"),
    Column("qkv", "zeros before QKV", SHARE),
    Column("up", "before up", SHARE),
    Column("down", "before down", SHARE),
    Column("saved", "FLOPs saved in the clear", SHARE),
]
LEAD = (
    "ReLU Strikes Back finds 94% zeros before the down projection of a relufied Falcon-7B and 62% of a Llama-7B (stage "
    "1), and 51% to 67% before QKV and up after stage 2. Here, a mean over the layers on held-out text:"
)
SECRET = "Under MPC these zeros save nothing: nobody may know where they are."


def table(lab: Lab) -> str:
    """One row for each diagnosed model that has zeros; nothing where none has."""
    rows = [_row(record) for record in sorted(lab.diagnoses, key=_name)]
    chosen = [row for row in rows if any(isinstance(cell, float) and cell > 0.001 for cell in row)]
    return f"{LEAD}\n\n{tables.render(Table(COLUMNS, chosen), 'markdown')}\n\n{SECRET}" if chosen else ""


def _row(record: JsonObject) -> list[Cell]:
    return [
        _name(record),
        *(_mean(record["sparsity"][role]) for role in ("qkv", "up", "down")),
        record["flops"]["share"],
    ]


def _name(record: JsonObject) -> str:
    return str(record["model"]).rpartition("/")[2]


def _mean(layers: list[float | None]) -> float | None:
    known = [share for share in layers if share is not None]
    return fmean(known) if known else None
