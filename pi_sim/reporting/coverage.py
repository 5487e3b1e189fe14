"""The protocols: what each of them is, which operations it prices, and from where. Imports no torch."""

import json
from typing import Any, Literal

from pi_sim.cost.protocols import Protocol, coverage, provenance
from pi_sim.graph.ops import STRUCTURAL, VOCABULARY
from pi_sim.reporting import tables
from pi_sim.reporting.tables import Column, Table
from pi_sim.reporting.units import COUNT
from pi_sim.specs import Sheet

Format = Literal["table", "markdown", "csv", "json"]

OPERATIONS = [op for op in VOCABULARY if op not in STRUCTURAL]

MARKS = {
    "derived": ("x", "derived by running the kernels"),
    "declared": ("d", "declared by its source for any size"),
    "fitted": ("f", "fitted to several figures of the source"),
    "scaled": ("s", "scaled from one size"),
    "plugin": ("p", "left to a plugin"),
    "local": ("·", "local, free"),
    "none": ("", "blank: refused"),
}
"""How the coverage of an operation is shown, and the legend."""


def render(protocols: list[Protocol], style: Format) -> str:
    """All protocols, and their coverage: two tables, or one tidy one, or JSON."""
    if style == "json":
        return json.dumps([{**about(each), "coverage": covered(each)} for each in protocols], indent=2)
    if style == "csv":
        return tables.render(_tidy(protocols), "csv")
    return "\n\n".join([tables.render(_list(protocols), style), tables.render(_matrix(protocols), style), _legend()])


def about(protocol: Protocol) -> dict[str, Any]:
    """What a protocol says of itself, under the names that its file uses."""
    keys = ("name", "title", "parties", "threat_model", "source")
    return {**{key: getattr(protocol, key) for key in keys}, "provenance": sources(protocol)}


def sources(protocol: Protocol) -> str:
    """Where its prices come from: a sheet can have several kinds."""
    if not isinstance(protocol, Sheet):
        return provenance(protocol)
    found = {price.provenance for price in protocol.price.values()}
    return ", ".join(mark for mark in MARKS if mark in found)


def covered(protocol: Protocol) -> dict[str, str]:
    """The coverage of every operation that a protocol might charge for."""
    return {op: coverage(op, protocol) for op in OPERATIONS}


def _list(protocols: list[Protocol]) -> Table:
    columns = [Column("number", "", COUNT), Column("name", "protocol"), Column("title", "")]
    columns += [Column("parties", "parties", COUNT), Column("provenance", "prices"), Column("threat", "threat model")]
    keys = ("name", "title", "parties", "provenance", "threat_model")
    return Table(columns, [[n, *map(about(each).get, keys)] for n, each in enumerate(protocols, start=1)])


def _matrix(protocols: list[Protocol]) -> Table:
    """Operations by protocols; these by their numbers, because their names would make it too wide."""
    columns = [Column("op", "operation"), *(Column(each.name, str(n)) for n, each in enumerate(protocols, start=1))]
    kinds = [covered(each) for each in protocols]
    return Table(columns, [[op, *(MARKS[kind[op]][0] for kind in kinds)] for op in OPERATIONS])


def _legend() -> str:
    return "; ".join(f"{mark} {meaning}" if mark else meaning for mark, meaning in MARKS.values())


def _tidy(protocols: list[Protocol]) -> Table:
    """A row for every operation of every protocol, in words."""
    keys = ("name", "title", "parties", "threat_model", "source")
    rows = [[*map(about(each).get, keys), op, kind] for each in protocols for op, kind in covered(each).items()]
    return Table([Column(key, key) for key in (*keys, "op", "coverage")], rows)
