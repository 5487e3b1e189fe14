"""Tables of protocols, networks, machines and runs, as commands print them. Imports neither torch nor pandas."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pi_sim import records, specs
from pi_sim.cost.cost import Machine
from pi_sim.cost.pricing import PricedProtocol, op_coverage, protocol_provenance
from pi_sim.errors import UsageError
from pi_sim.graph.ops import STRUCTURAL, VOCABULARY
from pi_sim.network import PRESETS
from pi_sim.records import RECORD_FILE, PartyRecord, RunRecord, TrainingRecord
from pi_sim.report import tables
from pi_sim.report.tables import Cell, Column, Format, Table, Unit, tabulate
from pi_sim.specs import DeclaredProtocol, ExecutableProtocol, ModelCard, Price
from pi_sim.specs.protocols import Terms
from pi_sim.zoo.source import list_configs, weights_folder

OPERATIONS = [op for op in VOCABULARY if op not in STRUCTURAL]
COVERAGE_MARKS = {  # mark in the table, and legend
    "derived": ("x", "derived by running the kernels"),
    "declared": ("d", "declared by its source for any size"),
    "fitted": ("f", "fitted to several figures of the source"),
    "scaled": ("s", "scaled from one size"),
    "plugin": ("p", "left to a plugin"),
    "local": ("·", "local, free"),
    "none": ("", "blank: refused"),
}
HEADER_KEYS = ("name", "title", "parties", "threat_model", "source")


def render_protocols(protocols: list[PricedProtocol], style: Format) -> str:
    """Render all protocols and their coverage: two tables, or one tidy one, or JSON."""
    headers, coverages = list(map(_header, protocols)), list(map(_coverage, protocols))
    pairs = list(zip(headers, coverages, strict=True))
    if style == "json":
        return json.dumps([{**header, "coverage": kinds} for header, kinds in pairs], indent=2)
    if style == "csv":
        tidy = [{**header, "op": op, "coverage": kind} for header, kinds in pairs for op, kind in kinds.items()]
        return tables.render(tabulate(tidy, {key: key for key in (*HEADER_KEYS, "op", "coverage")}), "csv")
    listed = [
        {**header, "number": number, "name": tables.label_protocol(header["name"])}
        for number, header in enumerate(headers, start=1)
    ]
    # Protocols by their numbers, in one column: their names would make the matrix too wide.
    rows: list[list[Cell]] = [[op, *(COVERAGE_MARKS[kinds[op]][0] for kinds in coverages)] for op in OPERATIONS]
    numbers = [str(row["number"]) for row in listed]
    if style == "table":
        numbers, rows = [_marks(numbers)], [[op, _marks(marks)] for op, *marks in rows]
    matrix = Table([Column("op", "operation"), *(Column(number, number) for number in numbers)], rows)
    legend = [f"{mark} {meaning}".strip() for mark, meaning in COVERAGE_MARKS.values()]
    return tables.render_template("protocols.txt.j2", style, protocols=listed, matrix=matrix, legend=legend)


def _marks(cells: Sequence[Cell]) -> str:
    return " ".join(f"{cell:>2}" for cell in cells)


def _header(protocol: PricedProtocol) -> dict[str, Any]:
    """Return what a protocol's file says of it, and the kinds of its prices, of which a sheet can have several."""
    kinds = protocol_provenance(protocol)
    if isinstance(protocol, DeclaredProtocol):
        present = {price.provenance for price in protocol.price.values()}
        kinds = ", ".join(kind for kind in COVERAGE_MARKS if kind in present)
    return {**{key: getattr(protocol, key) for key in HEADER_KEYS}, "provenance": kinds}


def _coverage(protocol: PricedProtocol) -> dict[str, str]:
    """Return the coverage of every operation that a protocol might charge for."""
    return {op: op_coverage(op, protocol) for op in OPERATIONS}


def render_protocol(protocol: PricedProtocol, style: Format) -> str:
    """Render one protocol: a heading, the prices as their sources print them or the kernels, and the notes."""
    if style == "json":
        document = {**_header(protocol), "coverage": _coverage(protocol)}
        if isinstance(protocol, ExecutableProtocol | DeclaredProtocol):
            document |= protocol.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(document, indent=2)
    titles = {"op": "operation", **{key: key for key in ("prices", "rounds", "bytes", "offline", "source")}}
    sheet = protocol if isinstance(protocol, DeclaredProtocol) else None
    rows: list[list[Cell]] = []
    for op, price in sheet.price.items() if sheet else ():
        sent, offline = (_format_terms(terms, price, price.unit) for terms in (price.bytes, price.offline))
        rows.append([op, price.provenance, _format_terms(price.rounds, price), sent, offline, price.source])
    kernels = protocol.kernels if isinstance(protocol, ExecutableProtocol) else {}
    for op, kind in _coverage(protocol).items():
        if kind in ("derived", "plugin", "local"):
            rows.append([op, kind, "", "", "", f"kernel {kernels[op]}" if op in kernels else ""])
    table = Table([Column(key, title) for key, title in titles.items()], rows)
    if style == "csv":
        return tables.render(table, "csv")
    if style == "table":  # no empty column; the sources stand in the list below
        shown = [i for i in range(len(titles)) if any(row[i] for row in rows) and not (sheet and i == len(titles) - 1)]
        table = Table([table.columns[i] for i in shown], [[row[i] for i in shown] for row in rows])
    return tables.render_template("protocol.txt.j2", style, protocol=protocol, sheet=sheet, prices=table)


def _format_terms(terms: Terms, price: Price, unit: str = "") -> str:
    """Format a sum as the sheet has it: coefficient, unit, feature, and the size at which it was measured."""
    parts = []
    for name, value in terms.items():
        size = f" / {price.at[name]:,.0f}" if name in price.at else ""
        figure = f"{value:,.10g} {unit}".strip()
        parts.append(figure if name == "each" else f"{figure} x {name}{size}")
    return " + ".join(parts)


def render_networks(style: Format) -> str:
    """Render the named networks, one row for each."""
    columns: dict[str, Any] = {
        "name": "network",
        "round_trip_seconds": ("round trip", (Unit(0, "ms", 1e-3, 1),)),
        "bits_per_second": ("bandwidth", (Unit(0, "Mbps", 1e6, 0),)),
        "source": "source",
    }
    rows = [
        dict(zip(columns, (preset.name, 2 * preset.latency, preset.bandwidth, preset.source), strict=True))
        for preset in PRESETS.values()
    ]
    return json.dumps(rows, indent=2) if style == "json" else tables.render(tabulate(rows, columns), style)


MACHINE_UNITS = {
    "macs": "multiply-accumulate of a matrix product in the ring",
    "elements": "element of 64 bits that another operation writes",
    "random": "byte of randomness",
    "calls": "call of an operation on tensors",
    "tuples": "tuple that CrypTen asks for, besides its calls",
    "rounds": "exchange of a small message over the loopback",
}


def render_machine(machine: Machine, style: Format) -> str:
    """Render a machine's profile, one row for each unit; in a table with the machine's name as its title."""
    if style == "json":
        return json.dumps(machine.model_dump(), indent=2)
    columns = [Column("unit", "unit"), Column("meaning", "one"), Column("seconds", "takes", (Unit(0, "ns", 1e-9, 2),))]
    seconds = machine.seconds_each.model_dump()
    table = Table(columns, [[unit, meaning, seconds[unit]] for unit, meaning in MACHINE_UNITS.items()])
    title = "" if style == "csv" else f"{machine.name}; {machine.source}\n\n"
    return tables.fold(title, style) + tables.render(table, style)


def summarize_run(record: RunRecord | PartyRecord) -> str:
    """Summarize a run, or one party of a run across two machines, in a screenful."""
    titles = {"rounds": "rounds", "bytes": "bytes sent", "offline_bytes": "bytes offline"}
    pairs = {title: (getattr(record.total, key), getattr(record.measured, key)) for key, title in titles.items()}
    counts = [
        {"title": title, "predicted": predicted, "measured": measured, "equal": equality(predicted, measured)}
        for title, (predicted, measured) in pairs.items()
    ]
    is_party = isinstance(record, PartyRecord)
    expected = None if isinstance(record, PartyRecord) else record.total.seconds.get(record.network)
    values = {"record": record, "counts": counts, "is_party": is_party, "expected": expected}
    return tables.render_template("run.txt.j2", "table", **values)


def equality(predicted: int | None, measured: int | None) -> str:
    """Return whether a count is as predicted."""
    return "equal" if predicted == measured else "NOT EQUAL"


DEFAULT_FAMILY = "gpt2"


def render_models() -> str:
    """List the model cards with their designs, the weights that ship with their held-out quality, and the sizes."""
    cards, sizes = specs.list_names("models"), specs.list_names("models/sizes")
    shipped = [(name, size) for name in cards for size in sizes if weights_folder(name, size).is_dir()]
    keys = ("model", "size", "perplexity", "bits_per_byte")
    rows = [(name, size, *heldout_quality(weights_folder(name, size))) for name, size in shipped]
    values = {
        "designs": [_describe_design(specs.load_model_card(name)) for name in cards],
        "weights": [dict(zip(keys, row, strict=True)) for row in rows],
    }
    return tables.render_template("models.txt.j2", "table", **values, sizes=sizes, public=list_configs())


def _describe_design(card: ModelCard) -> dict[str, str]:
    """Return a card's name, norm and activation, and its further settings as `--set` takes them."""
    design = card.architecture
    plan = {"family": design.family, **design.plan()}
    defaults = {"norm": design.norm, "activation": design.activation, "final_norm": design.norm}
    further = {key: value for key, value in plan.items() if value != {**defaults, "family": DEFAULT_FAMILY}.get(key)}
    settings = " ".join(f"{key}={_setting_text(value)}" for key, value in further.items())
    return {"model": card.name, "norm": design.norm, "activation": design.activation, "settings": settings}


def _setting_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def heldout_quality(folder: Path) -> tuple[str, str]:
    """Return the perplexity and the bits per byte of held-out text, by the record beside some weights."""
    path = folder / RECORD_FILE
    held_out = records.load(path, TrainingRecord).held_out
    if held_out is None or held_out.perplexity is None or held_out.bits_per_byte is None:
        raise UsageError(f"{path} does not state the perplexity and bits_per_byte of held-out text.")
    return f"{held_out.perplexity:.2f}", f"{held_out.bits_per_byte:.3f}"
