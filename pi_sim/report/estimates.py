"""Tables of estimates, comparisons and counts. Imports neither torch nor pandas: a cached estimate answers at once."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, Literal

from pi_sim import records
from pi_sim.cost.cost import ZERO
from pi_sim.cost.counts import Counts
from pi_sim.cost.estimate import Estimate
from pi_sim.cost.rows import Part, View
from pi_sim.errors import UsageError
from pi_sim.records import EstimateRecord
from pi_sim.report import tables
from pi_sim.report.tables import BYTES, COUNT, RATIO, SECONDS, SHARE, Cell, Column, Format, Table

Page = Literal["table", "markdown"]

TITLES: dict[View, str] = {"op": "operation", "layer": "layer", "module": "module", "total": ""}
INNER = "without embedding and head"
SCENARIO = ("model", "size", "protocol", "seq_len", "batch", "past")


@dataclass(frozen=True)
class Measure:
    """A column of numbers and how to read one; None where it is unknown."""

    column: Column
    read: Callable[[Estimate, Part], float | None]

    def share(self) -> "Measure":
        """Return the measure as a share of the estimate's total."""

        def read(estimate: Estimate, part: Part) -> float | None:
            total, value = self.read(estimate, estimate.whole), self.read(estimate, part)
            return None if total is None or value is None else value / (total or 1)

        return Measure(Column(f"share_of_{self.column.key}", self.column.title, SHARE), read)


ROUNDS = Measure(Column("rounds", "rounds", COUNT), lambda estimate, part: part.cost.rounds)
SENT = Measure(Column("bytes", "sent", BYTES), lambda estimate, part: part.cost.bytes)
OFFLINE = Measure(
    Column("offline_bytes", "offline", BYTES),
    lambda estimate, part: part.cost.offline if estimate.offline_known else None,
)
COMPUTING = Measure(Column("compute_seconds", "computing", SECONDS), lambda estimate, part: estimate.computing(part))


def second_measures(estimates: list[Estimate]) -> list[Measure]:
    """Return one measure for each network; its title says so where computing is left out."""
    with_computing = all(estimate.computing(estimate.whole) is not None for estimate in estimates)
    return [
        _seconds_on(network.name, network.name if with_computing else f"{network.name}\nnetwork\nonly")
        for network in estimates[0].networks
    ]


def _seconds_on(network: str, title: str) -> Measure:
    return Measure(Column(f"seconds_{network}", title, SECONDS), lambda estimate, part: estimate.seconds(part)[network])


def render_estimates(estimates: list[Estimate], view: View, style: Format, top: int | None = None) -> str:
    """Render estimates of the same view: one after another, or as one tidy table, or as JSON.

    With `top` the most expensive rows, and the others together; JSON holds every row, whatever the view.
    """
    if style == "json":
        stamped = [records.stamp(EstimateRecord.model_validate(estimate.to_json())) for estimate in estimates]
        return records.dumps(stamped[0] if len(stamped) == 1 else stamped).rstrip()
    if style == "csv":
        return tables.render(_tidy(estimates, view, top), "csv")
    sections = [
        _section(estimate_title(estimate), _table(estimate, view, top), _notes(estimate), style)
        for estimate in estimates
    ]
    return "\n\n".join([*sections, conventions(estimates)])


def estimate_title(estimate: Estimate) -> str:
    """Return model, size, protocol and length as one line."""
    length = describe_tokens(estimate.seq_len, estimate.batch, estimate.past)
    return f"{estimate.model} ({estimate.size}), protocol {estimate.protocol}, {length}"


def describe_tokens(seq_len: int, batch: int, past: int | None) -> str:
    """Return the tokens read at once: "128 tokens", "8 sequences of 128 tokens each", "1 token after 511"."""
    tokens = f"{seq_len:,} token{'s' if seq_len > 1 else ''}" + ("" if past is None else f" after {past:,}")
    return tokens if batch == 1 else f"{batch:,} sequences of {tokens} each"


def _section(title: str, table: Table, notes: list[str], style: Page) -> str:
    """Join a title, the table, and what it leaves out."""
    heading, gap = (f"### {title}", "\n\n") if style == "markdown" else (title, "\n")
    return gap.join([heading, tables.render(table, style), *notes])


def conventions(estimates: list[Estimate]) -> str:
    """List what the numbers of all estimates mean."""
    sentences = dict.fromkeys(sentence for estimate in estimates for sentence in estimate.conventions)
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _sums(estimate: Estimate) -> dict[str, Part]:
    """Return the closing rows: the total, unless embedding and head are left out, and what lies between these."""
    return ({} if estimate.only_inner else {"total": estimate.whole}) | {INNER: estimate.within}


def _free_operations(estimates: list[Estimate]) -> list[str]:
    """Return one line on the operations that cost nothing in any of the estimates, if there are some."""
    costly = {row.op for estimate in estimates for row in estimate.rows if row.cost != ZERO}
    names = dict.fromkeys(row.op for estimate in estimates for row in estimate.rows if row.op not in costly)
    return [f"{', '.join(names)}: local, {'costs' if len(names) == 1 else 'cost'} nothing"] if names else []


def _table(estimate: Estimate, view: View, top: int | None) -> Table:
    """Build the rows that cost something, then the sums with and without what grows with the vocabulary."""
    chosen = [measure for measure in _measures([estimate]) if measure.read(estimate, estimate.whole) is not None]
    parts = {} if view == "total" else {key: part for key, part in estimate.by(view).items() if part.cost != ZERO}
    rows = [_row(estimate, key, part, chosen) for key, part in _top(estimate, parts, top).items()]
    return Table(_columns(view, chosen), rows, _closing(estimate, chosen))


def _tidy(estimates: list[Estimate], view: View, top: int | None) -> Table:
    """Build every row of every estimate, each with its scenario."""
    chosen, rows = _measures(estimates), []
    for estimate in estimates:
        parts = _top(estimate, estimate.by(view), top).items()
        lines = [_row(estimate, key, part, chosen) for key, part in parts]
        scenario: list[Cell] = [getattr(estimate, key) for key in SCENARIO]
        rows += [[*scenario, *line] for line in (_closing(estimate, chosen) if view == "total" else lines)]
    return Table([*(Column(key, key) for key in SCENARIO), *_columns(view, chosen)], rows)


def _top(estimate: Estimate, parts: dict[str, Part], top: int | None) -> dict[str, Part]:
    return parts if top is None else estimate.dearest(parts, top)


def _measures(estimates: list[Estimate]) -> list[Measure]:
    counts = [column for measure in (ROUNDS, SENT, OFFLINE) for column in (measure, measure.share())]
    return [*counts, COMPUTING, *second_measures(estimates)]


def _columns(view: View, chosen: list[Measure]) -> list[Column]:
    return [Column(view, TITLES[view]), Column("count", "count", COUNT), *(measure.column for measure in chosen)]


def _row(estimate: Estimate, key: str, part: Part, chosen: list[Measure]) -> list[Cell]:
    return [key, part.count, *(measure.read(estimate, part) for measure in chosen)]


def _closing(estimate: Estimate, chosen: list[Measure]) -> list[list[Cell]]:
    """Build the sums; operations of different kinds are not counted together."""
    rows = [_row(estimate, key, part, chosen) for key, part in _sums(estimate).items()]
    return [[key, None, *numbers] for key, _, *numbers in rows]


def _session_note(estimate: Estimate) -> str:
    """Return what opening the weights takes, beside all sums."""
    return f"once in a session, beside the above: 1 round, {estimate.session / 1e6:,.2f} MB to open the weights"


def _notes(estimate: Estimate) -> list[str]:
    """Return the operations that cost nothing, where declared prices come from, and what the sources leave out."""
    origins: dict[str, dict[str, None]] = {}
    for row in estimate.rows:
        if row.cost != ZERO and row.provenance != "derived":
            origins.setdefault(row.provenance, {})[row.op] = None
    return [
        *_free_operations([estimate]),
        *(f"{', '.join(ops)}: {origin} prices" for origin, ops in origins.items()),
        *([_session_note(estimate)] if estimate.session else []),
        *([] if estimate.offline_known else ["offline bytes: the sources do not tell"]),
    ]


# ---- comparisons


def render_comparison(estimates: list[Estimate], view: View, style: Format) -> str:
    """Render two or more estimates in one table; as CSV or JSON with every number of each, against the first's."""
    compared = check_comparable(estimates)
    if style == "json":
        return json.dumps(_comparison_json(compared, view), indent=2)
    if style == "csv":
        full = _comparison(compared, view, _all_measures(compared))
        return tables.render(Table(full.columns, full.rows or full.totals), "csv")
    lettered = list(zip(ascii_uppercase, compared, strict=False))
    legend = [f"{letter}: {estimate_title(estimate)}" for letter, estimate in lettered]
    gap, mark = ("\n\n", "- ") if style == "markdown" else ("\n", "")
    table = tables.render(_comparison(compared, view, [ROUNDS, SENT, *second_measures(compared)]), style)
    sessions = [f"{letter}: {_session_note(estimate)}" for letter, estimate in lettered if estimate.session]
    section = gap.join(["\n".join(mark + line for line in legend), table, *_free_operations(compared), *sessions])
    return "\n\n".join([section, conventions(compared)])


def check_comparable(estimates: list[Estimate]) -> list[Estimate]:
    """Return the estimates, with seconds of computing if all have them; a `UsageError` where lengths differ."""
    if len(estimates) > len(ascii_uppercase):
        raise UsageError(f"there is no table of {len(estimates)} designs side by side; compare up to 26 of them.")
    if len({estimate.seq_len for estimate in estimates}) > 1:
        lengths = " and ".join(f"{estimate.model} {estimate.seq_len:,}" for estimate in estimates)
        raise UsageError(f"there is no comparing different lengths ({lengths} tokens); choose one --seq-len for all.")
    with_computing = all(estimate.computing(estimate.whole) is not None for estimate in estimates)
    return estimates if with_computing else [replace(estimate, machine=None) for estimate in estimates]


def _distinct_names(estimates: list[Estimate]) -> list[str]:
    """Return what tells the estimates apart, the model, the protocol or both; a `UsageError` if these do not."""
    varied = [key for key in ("model", "protocol") if len({getattr(estimate, key) for estimate in estimates}) > 1]
    names = ["_".join(getattr(estimate, key) for key in varied) for estimate in estimates]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two protocols are both called {estimates[0].protocol}; change the name in one of their files."
        )
    return names


def merge_orders(orders: list[list[str]]) -> list[str]:
    """Return all keys once, a new one ahead of the key that follows it in its own list."""
    merged: list[str] = []
    for order in orders:
        index = len(merged)
        for key in reversed(order):
            if key not in merged:
                merged.insert(index, key)
            index = merged.index(key)
    return merged


def _all_measures(estimates: list[Estimate]) -> list[Measure]:
    return [ROUNDS, SENT, OFFLINE, COMPUTING, *second_measures(estimates)]


def _comparison(estimates: list[Estimate], view: View, measures: list[Measure]) -> Table:
    """Build the rows that cost something, then the sums."""
    parts = [{key: part for key, part in estimate.by(view).items() if part.cost != ZERO} for estimate in estimates]
    rows = [] if view == "total" else _comparison_rows(estimates, parts, measures)
    columns = [Column(view, TITLES[view]), *_comparison_columns(_distinct_names(estimates), measures)]
    return Table(columns, rows, _comparison_rows(estimates, [_sums(estimate) for estimate in estimates], measures))


def _comparison_rows(
    estimates: list[Estimate], groups: list[dict[str, Part]], measures: list[Measure]
) -> list[list[Cell]]:
    """Build a row for every key of any estimate."""
    keys = merge_orders([list(parts) for parts in groups])
    return [[key, *_comparison_cells(estimates, [parts.get(key) for parts in groups], measures)] for key in keys]


def _comparison_cells(estimates: list[Estimate], parts: list[Part | None], measures: list[Measure]) -> Iterator[Cell]:
    """Yield each measure of each estimate, and behind all but the first its ratio to the first."""
    for measure in measures:
        pairs = zip(estimates, parts, strict=True)
        numbers = [measure.read(estimate, part) if part else None for estimate, part in pairs]
        for index, number in enumerate(numbers):
            yield number
            if index:
                yield number / numbers[0] if number is not None and numbers[0] else None


def _comparison_columns(names: list[str], measures: list[Measure]) -> Iterator[Column]:
    """Yield the columns of these cells."""
    for measure in measures:
        key, title, units = measure.column.key, measure.column.title, measure.column.units
        for index, (letter, name) in enumerate(zip(ascii_uppercase, names, strict=False)):
            yield Column(f"{key}_{name}", f"{title}\n{letter}", units)
            if index:
                yield Column(f"{key}_ratio_{name}", f"{letter} / A", RATIO)


def _comparison_json(estimates: list[Estimate], view: View) -> dict[str, Any]:
    """Return the estimates, and the table with its columns' keys."""
    table = _comparison(estimates, view, _all_measures(estimates))
    keys = [column.key for column in table.columns]
    rows, totals = ([dict(zip(keys, line, strict=True)) for line in lines] for lines in (table.rows, table.totals))
    return {"estimates": [estimate.to_json() for estimate in estimates], "by": view, "rows": rows, "totals": totals}


# ---- counts


def render_counts(counts: Counts, style: Format) -> str:
    """Render one row for each operation and shape."""
    if style == "json":
        return json.dumps(counts.to_json(), indent=2)
    columns = [
        Column("op", "operation"),
        Column("count", "count", COUNT),
        Column("shape", "of shape"),
        Column("multiplications", "multiplications", COUNT),
    ]
    rows: list[list[Cell]] = [[row.op, row.count, row.shape, row.multiplications] for row in counts.operations]
    if style == "csv":
        return tables.render(Table(columns, rows), "csv")
    total: list[Cell] = ["total", None, "", counts.multiplications]
    length = describe_tokens(counts.seq_len, counts.batch, counts.past)
    return _section(f"{counts.model} ({counts.size}), {length}", Table(columns, rows, [total]), [], style)
