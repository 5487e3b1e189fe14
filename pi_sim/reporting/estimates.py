"""Estimates as people and programs read them. Imports neither torch nor pandas: a known estimate answers at once."""

from typing import Literal

from pi_sim import records
from pi_sim.cost.cost import ZERO
from pi_sim.cost.estimate import Estimate
from pi_sim.cost.rows import Part, View
from pi_sim.records import EstimateRecord
from pi_sim.reporting import tables
from pi_sim.reporting.measures import COMPUTING, OFFLINE, ROUNDS, SENT, Measure, seconds, share
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT

Format = Literal["table", "markdown", "csv", "json"]
Page = Literal["table", "markdown"]

TITLES: dict[View, str] = {"op": "operation", "layer": "layer", "module": "module", "total": ""}
INNER = "without embedding and head"
SUBJECT = ("model", "size", "protocol", "seq_len", "batch", "past")


def render(estimates: list[Estimate], view: View, style: Format, top: int | None = None) -> str:
    """One or more estimates of the same view: one after another, or as one tidy table, or as JSON.

    With `top` the dearest rows, and the others together; JSON holds every row, whatever the view.
    """
    if style == "json":
        found = [records.stamp(EstimateRecord.model_validate(each.to_json())) for each in estimates]
        return records.dumps(found[0] if len(found) == 1 else found).rstrip()
    if style == "csv":
        return tables.render(_tidy(estimates, view, top), "csv")
    sections = [section(subject(each), _table(each, view, top), _notes(each), style) for each in estimates]
    return "\n\n".join([*sections, conventions(estimates)])


def subject(estimate: Estimate) -> str:
    """What an estimate is of, as a title says it."""
    asked = tokens(estimate.seq_len, estimate.batch, estimate.past)
    return f"{estimate.model} ({estimate.size}), protocol {estimate.protocol}, {asked}"


def tokens(seq_len: int, batch: int, past: int | None) -> str:
    """What is read at once: "128 tokens", "8 sequences of 128 tokens each", "1 token after 511"."""
    read = f"{seq_len:,} token{'s' if seq_len > 1 else ''}" + ("" if past is None else f" after {past:,}")
    return read if batch == 1 else f"{batch:,} sequences of {read} each"


def section(title: str, table: Table, notes: list[str], style: Page) -> str:
    """A title, the table, and what it leaves out."""
    heading, gap = (f"### {title}", "\n\n") if style == "markdown" else (title, "\n")
    return gap.join([heading, tables.render(table, style), *notes])


def conventions(estimates: list[Estimate]) -> str:
    """What the numbers of all estimates mean, as a list."""
    sentences = dict.fromkeys(sentence for each in estimates for sentence in each.conventions)
    return "\n".join(f"- {sentence}" for sentence in sentences)


def sums(estimate: Estimate) -> dict[str, Part]:
    """The closing rows: all there is, unless embedding and head are left out, and what lies between these."""
    return ({} if estimate.only_inner else {"total": estimate.whole}) | {INNER: estimate.within}


def free(estimates: list[Estimate]) -> list[str]:
    """One line on the operations that cost nothing in any of the estimates, if there are some."""
    dear = {row.op for each in estimates for row in each.rows if row.cost != ZERO}
    names = dict.fromkeys(row.op for each in estimates for row in each.rows if row.op not in dear)
    return [f"{', '.join(names)}: local, {'costs' if len(names) == 1 else 'cost'} nothing"] if names else []


def _table(estimate: Estimate, view: View, top: int | None) -> Table:
    """What is known of all that costs something, then the sums with and without what grows with the vocabulary."""
    chosen = [measure for measure in _measures([estimate]) if measure.read(estimate, estimate.whole) is not None]
    dear = {} if view == "total" else {key: part for key, part in estimate.by(view).items() if part.cost != ZERO}
    rows = [_row(estimate, key, part, chosen) for key, part in _first(estimate, dear, top).items()]
    return Table(_columns(view, chosen), rows, _closing(estimate, chosen))


def _tidy(estimates: list[Estimate], view: View, top: int | None) -> Table:
    """Every row of every estimate, each with what it is an estimate of."""
    chosen, rows = _measures(estimates), []
    for each in estimates:
        parts = [_row(each, key, part, chosen) for key, part in _first(each, each.by(view), top).items()]
        about: list[Cell] = [getattr(each, key) for key in SUBJECT]
        rows += [[*about, *row] for row in (_closing(each, chosen) if view == "total" else parts)]
    return Table([*(Column(key, key) for key in SUBJECT), *_columns(view, chosen)], rows)


def _first(estimate: Estimate, parts: dict[str, Part], top: int | None) -> dict[str, Part]:
    return parts if top is None else estimate.dearest(parts, top)


def _measures(estimates: list[Estimate]) -> list[Measure]:
    counted = [each for measure in (ROUNDS, SENT, OFFLINE) for each in (measure, share(measure))]
    return [*counted, COMPUTING, *seconds(estimates)]


def _columns(view: View, chosen: list[Measure]) -> list[Column]:
    return [Column(view, TITLES[view]), Column("count", "count", COUNT), *(measure.column for measure in chosen)]


def _row(estimate: Estimate, key: str, part: Part, chosen: list[Measure]) -> list[Cell]:
    return [key, part.count, *(measure.read(estimate, part) for measure in chosen)]


def _closing(estimate: Estimate, chosen: list[Measure]) -> list[list[Cell]]:
    """The sums; operations of different kinds are not counted together."""
    rows = [_row(estimate, key, part, chosen) for key, part in sums(estimate).items()]
    return [[key, None, *numbers] for key, _, *numbers in rows]


def once(estimate: Estimate) -> str:
    """What opening the weights takes, beside all sums."""
    return f"once in a session, beside the above: 1 round, {estimate.session / 1e6:,.2f} MB to open the weights"


def _notes(estimate: Estimate) -> list[str]:
    """The operations that cost nothing, where declared prices come from, and what is not told."""
    origins: dict[str, dict[str, None]] = {}
    for row in estimate.rows:
        if row.cost != ZERO and row.provenance != "derived":
            origins.setdefault(row.provenance, {})[row.op] = None
    told = [f"{', '.join(ops)}: {origin} prices" for origin, ops in origins.items()]
    unknown = ["offline bytes: the sources do not tell"]
    return [
        *free([estimate]),
        *told,
        *([once(estimate)] if estimate.session else []),
        *([] if estimate.offline_known else unknown),
    ]
