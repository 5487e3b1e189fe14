"""One protocol: what it says of itself, and its prices as their sources print them, or its kernels."""

import json
from typing import Any

from pi_sim.cost.protocols import Protocol
from pi_sim.reporting import tables
from pi_sim.reporting.coverage import Format, about, covered
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.specs import Price, ProtocolCard, Sheet
from pi_sim.specs.protocols import Terms

COLUMNS = ("op", "prices", "rounds", "bytes", "offline", "source")


def render(protocol: Protocol, style: Format) -> str:
    """A heading, the table of prices, and the notes."""
    if style == "json":
        return json.dumps({**about(protocol), "coverage": covered(protocol), **_rest(protocol)}, indent=2)
    table = Table([Column(key, {"op": "operation"}.get(key, key)) for key in COLUMNS], _rows(protocol))
    if style == "csv":
        return tables.render(table, "csv")
    return "\n\n".join(part for part in (_heading(protocol), tables.render(table, style), _notes(protocol)) if part)


def _rest(protocol: Protocol) -> dict[str, Any]:
    """What the file says besides."""
    return protocol.model_dump(mode="json", exclude_defaults=True) if isinstance(protocol, ProtocolCard | Sheet) else {}


def _rows(protocol: Protocol) -> list[list[Cell]]:
    """A row for every price, and one for what is free or, in an executable protocol, has a kernel."""
    priced = [_price(op, price) for op, price in protocol.price.items()] if isinstance(protocol, Sheet) else []
    kernels = protocol.kernels if isinstance(protocol, ProtocolCard) else {}
    return priced + [
        [op, kind, "", "", "", f"kernel {kernels[op]}" if op in kernels else ""]
        for op, kind in covered(protocol).items()
        if kind in ("derived", "plugin", "local")
    ]


def _price(op: str, price: Price) -> list[Cell]:
    sums = [
        _written(price.rounds, price),
        *(_written(terms, price, price.unit) for terms in (price.bytes, price.offline)),
    ]
    return [op, price.provenance, *sums, price.source]


def _written(terms: Terms, price: Price, unit: str = "") -> str:
    """A sum as the sheet has it: coefficient, unit, feature, and the size at which it was measured."""
    parts = []
    for name, value in terms.items():
        size = f" / {price.at[name]:,.0f}" if name in price.at else ""
        figure = f"{value:,.10g} {unit}".strip()
        parts.append(figure if name == "each" else f"{figure} x {name}{size}")
    return " + ".join(parts)


def _heading(protocol: Protocol) -> str:
    lines = [f"{protocol.name}: {protocol.title}", f"source: {protocol.source}"]
    lines.append(f"{protocol.parties} parties: {protocol.threat_model}")
    if isinstance(protocol, ProtocolCard | Sheet):
        lines.append(f"ring: {protocol.ring}")
    if isinstance(protocol, Sheet):
        lines.append(
            f"bytes: those that {protocol.counted} sent, as the source counts them; offline bytes: {_offline(protocol)}"
        )
    return "\n".join(lines)


def _offline(sheet: Sheet) -> str:
    if not sheet.offline_known:
        return "its sources do not tell"
    return (
        "there is no offline phase"
        if sheet.no_offline
        else f"those that reach {sheet.offline_counted or sheet.counted}"
    )


def _notes(protocol: Protocol) -> str:
    """The sheet's notes, and those of its prices."""
    if not isinstance(protocol, Sheet):
        return ""
    lines = [protocol.notes.strip(), *(f"- {op}: {price.note}" for op, price in protocol.price.items() if price.note)]
    return "\n".join(line for line in lines if line)
