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
from pi_sim.records.costs import Total as TotalRecord
from pi_sim.report import tables
from pi_sim.report.tables import Cell, Column, Format, Table, tabulate
from pi_sim.specs import DeclaredProtocol, ExecutableProtocol, ModelCard, Price
from pi_sim.zoo.source import list_configs, weights_folder

OPERATIONS = [op for op in VOCABULARY if op not in STRUCTURAL]
COVERAGE_MARKS = {
    "derived": "x",
    "declared": "d",
    "fitted": "f",
    "scaled": "s",
    "plugin": "p",
    "local": "·",
    "none": "",
}
HEADER_KEYS = ("name", "title", "parties", "threat_model", "source")
PRICE_KEYS = ("op", "prices", "rounds", "bytes", "offline", "source")


def render_protocols(protocols: list[PricedProtocol], style: Format) -> str:
    """Render all protocols and their coverage: two tables, or one tidy one, or JSON."""
    headers, coverages = list(map(protocol_header, protocols)), list(map(_coverage, protocols))
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
    rows: list[list[Cell]] = [[op, *(COVERAGE_MARKS[kinds[op]] for kinds in coverages)] for op in OPERATIONS]
    numbers = [str(header["number"]) for header in listed]
    if style == "table":
        numbers, rows = [_marks(numbers)], [[op, _marks(marks)] for op, *marks in rows]
    matrix = Table([Column("op", "operation"), *(Column(number, number) for number in numbers)], rows)
    return tables.render_template("protocols.txt.j2", style, protocols=listed, matrix=matrix)


def _marks(cells: Sequence[Cell]) -> str:
    return " ".join(f"{cell:>2}" for cell in cells)


def protocol_header(protocol: PricedProtocol) -> dict[str, Any]:
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
        document = {**protocol_header(protocol), "coverage": _coverage(protocol)}
        if isinstance(protocol, ExecutableProtocol | DeclaredProtocol):
            document |= protocol.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(document, indent=2)
    sheet = protocol if isinstance(protocol, DeclaredProtocol) else None
    rows: list[dict[str, Any]] = []
    for op, price in sheet.price.items() if sheet else ():
        terms = {key: _format_terms(price, key) for key in ("rounds", "bytes", "offline")}
        rows.append({"op": op, "prices": price.provenance, **terms, "source": price.source})
    kernels = protocol.kernels if isinstance(protocol, ExecutableProtocol) else {}
    for op, kind in _coverage(protocol).items():
        if kind in ("derived", "plugin", "local"):
            source = f"kernel {kernels[op]}" if op in kernels else None
            rows.append({**dict.fromkeys(PRICE_KEYS), "op": op, "prices": kind, "source": source})
    columns = {key: key for key in PRICE_KEYS} | {"op": "operation"}
    if style == "table":  # no empty column; the sources of a sheet stand in the list below
        empty = {key for key in PRICE_KEYS if not any(row[key] for row in rows) or (sheet and key == "source")}
        columns = {key: title for key, title in columns.items() if key not in empty}
    prices = tabulate(rows, columns)
    if style == "csv":
        return tables.render(prices, "csv")
    return tables.render_template("protocol.txt.j2", style, protocol=protocol, sheet=sheet, prices=prices)


def _format_terms(price: Price, quantity: str) -> str:
    """Format a sum as the sheet has it: coefficient, unit, feature, and the size at which it was measured."""
    unit, parts = "" if quantity == "rounds" else price.unit, []
    for name, value in getattr(price, quantity).items():
        size = f" / {price.at[name]:,.0f}" if name in price.at else ""
        figure = f"{value:,.10g} {unit}".strip()
        parts.append(figure if name == "each" else f"{figure} x {name}{size}")
    return " + ".join(parts)


def render_networks(style: Format) -> str:
    """Render the named networks, one row for each."""
    rows = network_rows()
    if style == "json":
        return json.dumps(rows, indent=2)
    return tables.render_template("networks.txt.j2", style, networks=rows)


def network_rows() -> list[dict[str, Any]]:
    """Return name, round trip, bandwidth and source of every named network."""
    keys = ("name", "round_trip_seconds", "bits_per_second", "source")
    values = [(preset.name, 2 * preset.latency, preset.bandwidth, preset.source) for preset in PRESETS.values()]
    return [dict(zip(keys, row, strict=True)) for row in values]


def render_machine(machine: Machine, style: Format) -> str:
    """Render a machine's profile, one row for each unit; in a table with the machine's name as its title."""
    if style == "json":
        return json.dumps(machine.model_dump(), indent=2)
    return tables.render_template("machine.txt.j2", style, machine=machine, seconds_each=machine.seconds_each)


def summarize_run(record: RunRecord | PartyRecord) -> str:
    """Summarize a run, or one party of a run across two machines, in a screenful."""
    is_party = isinstance(record, PartyRecord)
    answers = [{**answer.model_dump(exclude_none=True), "text": repr(answer.text)} for answer in record.answers]
    vectors = [vector.model_dump(exclude_none=True) for vector in record.vectors]
    values = {"record": record, "is_party": is_party, "answers": answers, "vectors": vectors}
    return tables.render_template("run.txt.j2", "table", counts=list_counts(record), **values)


def list_counts(record: RunRecord | PartyRecord) -> list[dict[str, Any]]:
    """Return predicted and measured counts of one sequence: rounds and bytes, without those that are always zero."""
    total, measured = record.total, record.measured
    counts = [("rounds", total.rounds, measured.rounds), ("bytes sent", total.bytes, measured.bytes)]
    if is_uneven(total) and total.bytes_by_party and measured.bytes_by_party:
        names = ("by the server", "by the client")
        counts += zip(names, total.bytes_by_party, measured.bytes_by_party, strict=True)
    before_input = [
        ("bytes ahead", total.ahead_bytes, measured.ahead_bytes),
        ("session", total.session_bytes, measured.session_bytes),
    ]
    offline = ("bytes offline", total.offline_bytes, measured.offline_bytes)
    return [
        {"title": title, "predicted": predicted, "measured": measurement, "equal": equality(predicted, measurement)}
        for title, predicted, measurement in [*counts, *(row for row in before_input if row[1]), offline]
    ]


def is_uneven(price: TotalRecord) -> bool:
    """Return whether the parties send different amounts in more than the opening of results."""
    return bool(price.session_bytes) and price.bytes_by_party is not None and len(set(price.bytes_by_party)) > 1


def equality(predicted: int | None, measured: int | None) -> str:
    """Return whether a count is as predicted."""
    return "equal" if predicted == measured else "NOT EQUAL"


DEFAULT_FAMILY = "gpt2"


def render_models(style: Format) -> str:
    """List the model cards with their designs, the weights that ship with their held-out quality, and the sizes."""
    values = {
        "designs": list_designs(),
        "weights": list_weights(),
        "sizes": specs.list_names("models/sizes"),
        "public": list_configs(),
    }
    if style == "json":
        return json.dumps(values, indent=2)
    return tables.render_template("models.txt.j2", style, **values)


def list_designs() -> list[dict[str, str]]:
    """Return the design of every model card."""
    return [_describe_design(specs.load_model_card(name)) for name in specs.list_names("models")]


def list_weights() -> list[dict[str, str]]:
    """Return model, size and held-out quality of the weights that ship."""
    return [
        {"model": name, "size": size, **heldout_quality(folder)}
        for name in specs.list_names("models")
        for size in specs.list_names("models/sizes")
        if (folder := weights_folder(name, size)).is_dir()
    ]


def _describe_design(card: ModelCard) -> dict[str, str]:
    """Return a card's name, norm and activation, and its further settings as `--set` takes them."""
    design = card.architecture
    columns = {"norm": design.norm, "activation": design.activation}
    defaults = {**columns, "final_norm": design.norm, "family": DEFAULT_FAMILY}
    plan = {"family": design.family, **design.plan()}
    further = {key: value for key, value in plan.items() if value != defaults.get(key)}
    settings = " ".join(f"{key}={_setting_text(value)}" for key, value in further.items())
    return {"model": card.name, **columns, "settings": settings}


def _setting_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def heldout_quality(folder: Path) -> dict[str, str]:
    """Return the perplexity and the bits per byte of held-out text, by the record beside some weights."""
    path = folder / RECORD_FILE
    held_out = records.load(path, TrainingRecord).held_out
    if held_out is None or held_out.perplexity is None or held_out.bits_per_byte is None:
        raise UsageError(f"{path} does not state the perplexity and bits_per_byte of held-out text.")
    return {"perplexity": f"{held_out.perplexity:.2f}", "bits_per_byte": f"{held_out.bits_per_byte:.3f}"}
