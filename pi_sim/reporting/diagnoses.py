"""A diagnosis as people and programs read it."""

import json
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Literal

from pi_sim.diagnosis.entropy import COLLAPSE, OVERLOAD
from pi_sim.files import write_bytes
from pi_sim.records import JsonObject
from pi_sim.reporting import tables
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, SHARE, Unit

Format = Literal["table", "markdown", "csv", "json"]
PLAIN = (Unit(0, "", 1, 4),)
FAILED = 0.01
"""So many failed truncations in a sequence are worth a sentence: one destroys it."""
SECRET = "under MPC they save nothing, because nobody may know where they are."


def render(record: JsonObject, style: Format) -> str:
    """The tables and what they come to; as CSV the table of layers alone."""
    if style == "json":
        return json.dumps(record, indent=2)
    if style == "csv":
        return tables.render(layers(record), "csv")
    listed = "\n".join(f"- {sentence}" for sentence in sentences(record))
    if style == "markdown":
        found = [layers(record, " "), learned(record), _escaped(ranges(record))]
        return "\n\n".join([f"### {_title(record)}", *_rendered(found, style), listed])
    found = [layers(record), learned(record), ranges(record)]
    return "\n".join([_title(record), *_rendered(found, style), listed])


def _rendered(found: list[Table], style: tables.Format) -> list[str]:
    return [tables.render(each, style) for each in found if each.rows]


def _escaped(table: Table) -> Table:
    """For Markdown, where a bar such as that of |input| would end a cell."""
    rows: list[list[Cell]] = [
        [cell.replace("|", "\\|") if isinstance(cell, str) else cell for cell in row] for row in table.rows
    ]
    return Table(table.columns, rows)


def _title(record: JsonObject) -> str:
    count = record["sequences"]
    tokens = f"{count} {record['text']} sequence{'s' if count > 1 else ''} of {record['seq_len']:,} tokens"
    return f"{record['model']} ({record['size']}), protocol {record['protocol']}, {tokens}"


def layers(record: JsonObject, gap: str = "\n") -> Table:
    """One row for each layer; entropy over its heads, as a share of the maximum. `gap` parts the words of titles."""
    columns = [
        Column("layer", "layer", COUNT),
        *(Column(f"entropy_{key}", f"entropy{gap}{key}", SHARE) for key in ("mean", "min", "max")),
        *(Column(key, f"heads in{gap}{key}", SHARE) for key in ("overload", "collapse")),
        *(Column(key, title, COUNT) for key, title in (("nan", "NaN"), ("inf", "inf"))),
        *(Column(f"zeros_{role}", f"zeros{gap}{role}", SHARE) for role in record["sparsity"]),
        *([Column("slope", "slope", PLAIN)] if record.get("slopes") else []),
    ]
    return Table(columns, [_layer(record, number) for number in range(len(record["entropy_share"]))])


def _layer(record: JsonObject, number: int) -> list[Cell]:
    heads = [share for share in record["entropy_share"][number] if share is not None]
    entropy: list[Cell] = [fmean(heads), min(heads), max(heads)] if heads else ["NaN"] * 3
    kept = [
        *(record["by_layer"][key][number] for key in ("overload", "collapse")),
        *(record["non_finite"][key][number] for key in ("nan", "inf")),
        *(shares[number] for shares in record["sparsity"].values()),
    ]
    return [number, *entropy, *kept, *([record["slopes"][number]] if record.get("slopes") else [])]


def learned(record: JsonObject) -> Table:
    """alpha of each DyT and Derf beside 1 / std of its input."""
    keys = {"module": "module", "alpha": "alpha", "inverse_std": "1/std"}
    columns = [Column(key, title, () if key == "module" else PLAIN) for key, title in keys.items()]
    return Table(columns, [[each[key] for key in keys] for each in record.get("alphas") or []])


def ranges(record: JsonObject) -> Table:
    """One row for each quantity of each operation: its extremes over all modules, and what they allow."""
    titles = ("operation", "quantity", "from", "to", "largest in", "overflow", "kernel")
    columns = [Column(title, title, COUNT if title in ("from", "to") else ()) for title in titles]
    groups: dict[tuple[str, str], list[JsonObject]] = {}
    for row in record["ranges"]:
        groups.setdefault((row["op"], row["quantity"]), []).append(row)
    return Table(columns, [[*key, *_extremes(rows)] for key, rows in groups.items()])


def _extremes(rows: list[JsonObject]) -> Iterator[Cell]:
    for key, end in (("min", min), ("max", max)):
        values = [row[key] for row in rows]
        yield "not finite" if None in values else f"{end(values):.4g}"
    yield max(rows, key=_size)["module"]
    yield "no" if all(row["fits"] for row in rows) else "YES"
    yield _kernel(rows)


def _size(row: JsonObject) -> float:
    """What is not finite is larger than all that is."""
    return float("inf") if row["largest"] is None else float(row["largest"])


def _kernel(rows: list[JsonObject]) -> str:
    """Where the protocol's kernel is right, and whether that is where the numbers are."""
    if not rows[0].get("kernel"):
        return ""
    low, high = rows[0]["domain"]
    held = "holds" if all(row["in_domain"] for row in rows) else "LEFT"
    return f"{rows[0]['kernel']}: {low:g} to {high:g} {held}"


def sentences(record: JsonObject) -> Iterator[str]:
    """What the tables come to."""
    limits = (("overload", f"above {OVERLOAD:.0%}"), ("collapse", f"below {COLLAPSE:.0%}"))
    heads = ", ".join(f"{record[key]:.1%} in {key} ({limit})" for key, limit in limits)
    yield f"Heads by their share of the maximum entropy: {heads}."
    nan, inf = (sum(record["non_finite"][kind]) for kind in ("nan", "inf"))
    if nan or inf:
        yield f"The blocks put out {nan:,} NaN and {inf:,} infinities: the model is broken."
    flops = record["flops"]
    yield (
        f"In the clear, zeros would save {flops['share']:.1%} of a token's {flops['per_token']:,} FLOPs in the blocks' "
        f"matrices; {SECRET}"
    )
    left = {f"{row['op']} by {row['kernel']}" for row in record["ranges"] if row.get("in_domain") is False}
    if left:
        yield f"Expect inexact logits under {record['protocol']}: {', '.join(sorted(left))} leaves its domain."
    yield from _truncations(record)
    yield from record["missing"]


def _truncations(record: JsonObject) -> Iterator[str]:
    """How many fail, unless hardly any; records of earlier versions do not tell."""
    rows = record.get("truncations", [])
    expected = sum(row["expected_failures"] for row in rows)
    if expected >= FAILED:
        worst = max(rows, key=itemgetter("expected_failures"))
        yield (
            f"Expect {expected:,.2f} failed truncations in each sequence under {record['protocol']}, "
            f"{worst['expected_failures'] / expected:.0%} of them in {worst['op']} of {worst['module']}: each is off "
            "by 2^32 and destroys the logits that depend on it."
        )


def figures(record: JsonObject, folder: Path) -> list[Path]:
    """Every figure as SVG and PNG, drawn before the first is written; where they lie."""
    from pi_sim.reporting.figures import diagnosis
    from pi_sim.reporting.figures.style import png, svg

    kinds = {"svg": lambda figure: svg(figure).encode(), "png": png}
    drawn = [
        (f"{name}.{kind}", write(figure)) for name, figure in diagnosis.draw(record) for kind, write in kinds.items()
    ]
    files = {folder / name: content for name, content in drawn}
    for path, content in files.items():
        write_bytes(path, content)
    return list(files)
