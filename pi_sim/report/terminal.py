"""Tables of protocols, networks, machines and runs, as commands print them. Imports neither torch nor pandas."""

import json
from collections.abc import Iterator
from typing import Any, Literal

from pi_sim.cost.machine import Machine
from pi_sim.cost.protocols import Protocol, coverage, provenance
from pi_sim.graph.ops import STRUCTURAL, VOCABULARY
from pi_sim.network import PRESETS
from pi_sim.records import Measured, PartyRecord, RunRecord
from pi_sim.records.costs import LinkCosts
from pi_sim.report import tables
from pi_sim.report.tables import COUNT, SECONDS, Cell, Column, Table, Unit, format_perplexity, format_quantity
from pi_sim.specs import Price, ProtocolCard, Sheet
from pi_sim.specs.protocols import Terms

Format = Literal["table", "markdown", "csv", "json"]

OPERATIONS = [op for op in VOCABULARY if op not in STRUCTURAL]
COVERAGE_MARKS = {
    "derived": ("x", "derived by running the kernels"),
    "declared": ("d", "declared by its source for any size"),
    "fitted": ("f", "fitted to several figures of the source"),
    "scaled": ("s", "scaled from one size"),
    "plugin": ("p", "left to a plugin"),
    "local": ("·", "local, free"),
    "none": ("", "blank: refused"),
}
"""Each kind of coverage: its mark in the table, and the legend."""
HEADER_KEYS = ("name", "title", "parties", "threat_model", "source")


def render_protocols(protocols: list[Protocol], style: Format) -> str:
    """Render all protocols and their coverage: two tables, or one tidy one, or JSON."""
    if style == "json":
        rows = [{**_header(protocol), "coverage": _coverage(protocol)} for protocol in protocols]
        return json.dumps(rows, indent=2)
    if style == "csv":
        return tables.render(_tidy_coverage(protocols), "csv")
    legend = "; ".join(f"{mark} {meaning}" if mark else meaning for mark, meaning in COVERAGE_MARKS.values())
    shown = [_protocol_list(protocols), _coverage_matrix(protocols)]
    return "\n\n".join([*(tables.render(table, style) for table in shown), legend])


def _header(protocol: Protocol) -> dict[str, Any]:
    """Return what a protocol's file says of it, and the kinds of its prices, of which a sheet can have several."""
    kinds = provenance(protocol)
    if isinstance(protocol, Sheet):
        present = {price.provenance for price in protocol.price.values()}
        kinds = ", ".join(kind for kind in COVERAGE_MARKS if kind in present)
    return {**{key: getattr(protocol, key) for key in HEADER_KEYS}, "provenance": kinds}


def _coverage(protocol: Protocol) -> dict[str, str]:
    """Return the coverage of every operation that a protocol might charge for."""
    return {op: coverage(op, protocol) for op in OPERATIONS}


def _protocol_list(protocols: list[Protocol]) -> Table:
    columns = [Column("number", "", COUNT), Column("name", "protocol"), Column("title", "")]
    columns += [Column("parties", "parties", COUNT), Column("provenance", "prices"), Column("threat", "threat model")]
    keys = ("name", "title", "parties", "provenance", "threat_model")
    return Table(columns, [[n, *map(_header(protocol).get, keys)] for n, protocol in enumerate(protocols, start=1)])


def _coverage_matrix(protocols: list[Protocol]) -> Table:
    """Build operations by protocols, these by their numbers, because their names would make it too wide."""
    numbered = enumerate(protocols, start=1)
    columns = [Column("op", "operation"), *(Column(protocol.name, str(n)) for n, protocol in numbered)]
    kinds = [_coverage(protocol) for protocol in protocols]
    return Table(columns, [[op, *(COVERAGE_MARKS[kind[op]][0] for kind in kinds)] for op in OPERATIONS])


def _tidy_coverage(protocols: list[Protocol]) -> Table:
    """Build a row for every operation of every protocol, in words."""
    rows: list[list[Cell]] = [
        [*map(_header(protocol).get, HEADER_KEYS), op, kind]
        for protocol in protocols
        for op, kind in _coverage(protocol).items()
    ]
    return Table([Column(key, key) for key in (*HEADER_KEYS, "op", "coverage")], rows)


def render_protocol(protocol: Protocol, style: Format) -> str:
    """Render one protocol: a heading, the prices as their sources print them or the kernels, and the notes."""
    if style == "json":
        full = protocol.model_dump(mode="json", exclude_defaults=True) if isinstance(protocol, ProtocolCard | Sheet) else {}
        return json.dumps({**_header(protocol), "coverage": _coverage(protocol), **full}, indent=2)
    titles = {"op": "operation", **{key: key for key in ("prices", "rounds", "bytes", "offline", "source")}}
    table = Table([Column(key, title) for key, title in titles.items()], _price_rows(protocol))
    if style == "csv":
        return tables.render(table, "csv")
    parts = _protocol_heading(protocol), tables.render(table, style), _protocol_notes(protocol)
    return "\n\n".join(part for part in parts if part)


def _price_rows(protocol: Protocol) -> list[list[Cell]]:
    """Build a row for every price, and one for what is free or, in an executable protocol, has a kernel."""
    rows = [_price_row(op, price) for op, price in protocol.price.items()] if isinstance(protocol, Sheet) else []
    kernels = protocol.kernels if isinstance(protocol, ProtocolCard) else {}
    return rows + [
        [op, kind, "", "", "", f"kernel {kernels[op]}" if op in kernels else ""]
        for op, kind in _coverage(protocol).items()
        if kind in ("derived", "plugin", "local")
    ]


def _price_row(op: str, price: Price) -> list[Cell]:
    rounds = _format_terms(price.rounds, price)
    sent, offline = (_format_terms(terms, price, price.unit) for terms in (price.bytes, price.offline))
    return [op, price.provenance, rounds, sent, offline, price.source]


def _format_terms(terms: Terms, price: Price, unit: str = "") -> str:
    """Format a sum as the sheet has it: coefficient, unit, feature, and the size at which it was measured."""
    parts = []
    for name, value in terms.items():
        size = f" / {price.at[name]:,.0f}" if name in price.at else ""
        figure = f"{value:,.10g} {unit}".strip()
        parts.append(figure if name == "each" else f"{figure} x {name}{size}")
    return " + ".join(parts)


def _protocol_heading(protocol: Protocol) -> str:
    lines = [f"{protocol.name}: {protocol.title}", f"source: {protocol.source}"]
    lines.append(f"{protocol.parties} parties: {protocol.threat_model}")
    if isinstance(protocol, ProtocolCard | Sheet):
        lines.append(f"ring: {protocol.ring}")
    if isinstance(protocol, Sheet):
        offline = f"those that reach {protocol.offline_counted or protocol.counted}"
        if protocol.no_offline:
            offline = "there is no offline phase"
        if not protocol.offline_known:
            offline = "its sources do not tell"
        lines.append(
            f"bytes: those that {protocol.counted} sent, as the source counts them; offline bytes: {offline}"
        )
    return "\n".join(lines)


def _protocol_notes(protocol: Protocol) -> str:
    """Return the sheet's notes, and those of its prices."""
    if not isinstance(protocol, Sheet):
        return ""
    lines = [protocol.notes.strip(), *(f"- {op}: {price.note}" for op, price in protocol.price.items() if price.note)]
    return "\n".join(line for line in lines if line)


# ---- networks and machines


def render_networks(style: Format) -> str:
    """Render the named networks, one row for each."""
    columns = [
        Column("name", "network"),
        Column("round_trip_seconds", "round trip", (Unit(0, "ms", 1e-3, 1),)),
        Column("bits_per_second", "bandwidth", (Unit(0, "Mbps", 1e6, 0),)),
        Column("source", "source"),
    ]
    rows: list[list[Cell]] = [
        [network.name, 2 * network.latency, network.bandwidth, network.source] for network in PRESETS.values()
    ]
    if style == "json":
        keys = [column.key for column in columns]
        return json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2)
    return tables.render(Table(columns, rows), style)


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
    return tables.render(table, style) if style == "csv" else f"{machine.name}; {machine.source}\n\n{tables.render(table, style)}"


# ---- runs


PARTIES = ("server", "client")
DEALER = (
    "CrypTen's default dealer is party 0, which could open everything: good for counting and timing, not a deployment."
)
DEALERS = {
    "first-party": DEALER,
    "third-party": (
        "The dealer was a third process, which could open everything together with a record of the messages: private "
        "where somebody runs it who colludes with neither party, and here one user ran all three."
    ),
    "file": (
        "The randomness was dealt beforehand: whoever ran `pi-sim deal`, or keeps a copy of both files, could open "
        "everything with a record of the messages, so it must have been neither party."
    ),
}
"""The meaning of each kind of dealer for privacy."""
REMOTE_DEALER = "Here the server was the dealer, and could open everything: good for measuring, not a deployment."
UNENCRYPTED = "Nothing was encrypted: whoever read the network between the machines could open everything."
LEARNT = [
    "Both know the graph. The client learns the logits and nothing else of the weights, the server how much text there",
    "was and nothing else of it: if both follow the protocol (semi-honest), and if the dealer sides with neither.",
]


def summarize_run(record: RunRecord) -> str:
    """Summarize a run in a screenful: predicted and measured counts, seconds, and the private result."""
    lines = [f"{label:<11} {sentence}" for label, sentence in (*_time_lines(record), *_quality_lines(record))]
    return "\n".join([_run_title(record), _count_table(record), *lines, "", DEALERS[record.dealer]])


def summarize_party(record: PartyRecord) -> str:
    """Summarize one party of a run across two machines, and who learnt what."""
    measured, lines = record.measured, []
    lines.append(("time", _spent(measured, "in the link")))
    if measured.link:
        overhead = _overhead(measured.link)
        lines.append(("link", f"{overhead}, measured beforehand; the rest is waiting for the other party"))
    if record.perplexity:
        private = format_perplexity(record.perplexity.private)
        lines.append(("perplexity", f"{private} private; nobody computed a plain one"))
    dealer = REMOTE_DEALER if record.dealer == "first-party" else DEALERS[record.dealer]
    notes = [*LEARNT, dealer, *([] if record.encrypted else [UNENCRYPTED])]
    text = [f"{label:<11} {sentence}" for label, sentence in lines]
    title = f"{PARTIES[record.rank]} of {_run_title(record)}"
    return "\n".join([title, _count_table(record), *text, "", *notes])


def _run_title(record: RunRecord | PartyRecord) -> str:
    sequences = record.sequences
    tokens = f"{sequences} sequence{'s' if sequences > 1 else ''} of {record.seq_len:,} tokens"
    return f"{record.model} ({record.size}), protocol {record.protocol}, {tokens}"


def _count_table(record: RunRecord | PartyRecord) -> str:
    """Render the predicted and the measured cost of one sequence: integers, hence equal or wrong."""
    columns = [
        Column("counted", "one sequence"),
        Column("predicted", "predicted", COUNT),
        Column("measured", "measured", COUNT),
        Column("agreement", ""),
    ]
    titles = {"rounds": "rounds", "bytes": "bytes sent", "offline_bytes": "bytes offline"}
    rows: list[list[Cell]] = []
    for key, title in titles.items():
        predicted, measured = getattr(record.total, key), getattr(record.measured, key)
        rows.append([title, predicted, measured, equality(predicted, measured)])
    return tables.render(Table(columns, rows), "table")


def equality(predicted: int, measured: int) -> str:
    """Return whether a count is as predicted."""
    return "equal" if predicted == measured else "NOT EQUAL"


def _time_lines(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield where one sequence's time went, and the prediction for the imitated network."""
    measured = record.measured
    yield "time", _spent(measured, "communicating")
    expected = record.total.seconds.get(record.network)
    if expected:
        ratio = measured.communication_seconds / expected
        seconds = [format_quantity(value, SECONDS) for value in (expected, measured.communication_seconds)]
        comparison = f"{seconds[0]} predicted, {seconds[1]} measured, ratio {ratio:.2f}"
        yield "network", f"{record.network}, imitated: {comparison}"
        if measured.link:
            late = format_quantity(measured.late_seconds or 0.0, SECONDS)
            yield "link", f"{_overhead(measured.link)} by itself; messages came {late} late in all"


def _spent(measured: Measured, otherwise: str) -> str:
    """Describe where one sequence's time went, `otherwise` naming what was not computing."""
    total, computing, rest, setup = (
        format_quantity(seconds, SECONDS)
        for seconds in (
            *(measured.seconds, measured.compute_seconds, measured.communication_seconds, measured.setup_seconds),
        )
    )
    return f"{total} a sequence: {computing} computing, {rest} {otherwise}; set-up around all {setup}"


def _overhead(link: LinkCosts) -> str:
    """Describe what the connection itself takes."""
    one_round, megabyte = (format_quantity(value, SECONDS) for value in (link.round_seconds, link.megabyte_seconds))
    return f"{one_round} a round and {megabyte} a MB each way"


def _quality_lines(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield both perplexities on the same tokens, and the distance between the logits."""
    perplexity, agreement = record.perplexity, record.agreement
    private = format_perplexity(perplexity.private)
    if agreement is None:
        yield "perplexity", f"{private} private; there is no plain model to compare with"
        return
    yield "perplexity", f"{format_perplexity(perplexity.plain)} plain, {private} private, on the same tokens"
    differences = f"largest difference {agreement.max_abs:.3g}, mean {agreement.mean_abs:.3g}"
    yield "logits", f"{differences}; the likeliest token is the same at {agreement.top1:.1%} of places"
    if agreement.corrupted_positions and (rest := perplexity.excluding_corrupted):
        positions = record.sequences * record.seq_len
        remaining = f"{format_perplexity(rest.plain)} plain, {format_perplexity(rest.private)} private"
        yield (
            "destroyed",
            f"{agreement.corrupted_positions:,} of {positions:,} places, see protocols/README.md; elsewhere {remaining}",
        )
