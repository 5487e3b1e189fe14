"""Published figures beside ours, as tables, as data and as the values of a page."""

import json
from typing import Any, Literal

import pandas as pd

from pi_sim.report import tables
from pi_sim.report.tables import COUNT, SHARE, Cell, Column, Table, tabulate
from pi_sim.validation.comparison import Comparison
from pi_sim.validation.validate import Validation

Format = Literal["table", "csv", "json"]

KEYS = (
    *("source", "row", "table", "protocol", "figure", "published", "ours", "unit", "counted", "error", "provenance"),
    *("role", "tolerance", "verdict", "reason"),
)
"""The columns that programs get of each figure."""
UNEXPLAINED = 0.01
"""An error beyond this is worth a reason."""


def comparison_frame(validations: list[Validation]) -> pd.DataFrame:
    """Build one row for each published figure."""
    return pd.DataFrame([_row(validation.name, row) for validation in validations for row in validation.comparisons])


def _row(source: str, comparison: Comparison) -> dict[str, Any]:
    claim, quantity = comparison.claim, comparison.quantity
    unit = {"rounds": "", "seconds": "s"}.get(quantity, claim.unit)
    # Bytes for bytes, whatever unit was printed.
    scale = claim.bytes_per_unit if quantity in ("bytes", "offline") else 1.0
    return {
        "source": source,
        "row": claim.name,
        "table": claim.source,
        "protocol": claim.protocol,
        "figure": quantity,
        "published": comparison.published,
        "ours": comparison.predicted,
        "unit": unit,
        "counted": claim.counted,
        "error": comparison.error,
        "provenance": comparison.provenance,
        "role": claim.role,
        "tolerance": comparison.tolerance,
        "verdict": comparison.verdict,
        "reason": claim.reason,
        "published_text": f"{comparison.published:,.{comparison.decimals}f} {unit}".strip(),
        "ours_text": f"{comparison.predicted:,.{comparison.decimals}f} {unit}".strip(),
        "published_size": comparison.published * scale,
        "size": comparison.predicted * scale,
        "computing": comparison.compute_seconds,
    }


def render_validations(validations: list[Validation], style: Format) -> str:
    """Render all validations: sections and a summary, one tidy table, or JSON."""
    frame = comparison_frame(validations)
    if style == "json":
        return json.dumps([_to_json(validation, frame) for validation in validations], indent=2)
    if style == "csv":
        return tables.render(tabulate(frame, {key: key for key in KEYS}), "csv")
    sections = []
    for validation in validations:
        notes = "\n".join(f"- {remark}" for remark in remarks(validation))
        table = tables.render(figure_table(validation), "table")
        sections += [validation.publication.title, table, *([notes] if notes else [])]
    return "\n".join([*sections, "", tables.render(summary_table(validations), "table")])


def _to_json(validation: Validation, frame: pd.DataFrame) -> dict[str, Any]:
    rows = frame[frame["source"] == validation.name][list(KEYS)]
    publication = {"title": validation.publication.title, "url": validation.publication.url}
    return {"source": validation.name, **publication, "rows": rows.to_dict("records")}


def figure_table(validation: Validation) -> Table:
    """Build one row for each figure of a publication."""
    columns: dict[str, Any] = {
        "row": "row",
        "figure": "figure",
        "published_text": ("published", COUNT),
        "ours_text": ("ours", COUNT),
        "error": ("error", "{:+z.2%}".format),
        "tolerance": ("tolerance", "{:.2%}".format),
        "provenance": "prices",
        "role": "role",
        "verdict": "verdict",
    }
    return tabulate(comparison_frame([validation]), columns)


def remarks(validation: Validation) -> list[str]:
    """Return suspected reasons of errors above one in a hundred, and which seconds are no prediction."""
    reasons = {row.claim.name: row.claim.reason for row in validation.comparisons if abs(row.error) > UNEXPLAINED}
    computing = dict.fromkeys(row.compute_seconds for row in validation.comparisons if row.compute_seconds is not None)
    return [
        *(f"{name}: {reason or 'no reason is known'}." for name, reason in reasons.items()),
        *(
            f"seconds are the network's and {seconds:,.1f} s of computing, which the row of role fit leaves."
            for seconds in computing
        ),
    ]


def summary_table(validations: list[Validation]) -> Table:
    """Build one row for each publication, and the sums."""
    titles = ("figures", "fitted", "checked", "exact", "within tolerance", "missed")
    columns = [Column("source", "source"), *(Column(title, title, COUNT) for title in titles)]
    columns.append(Column("largest", "largest error met", SHARE))
    counts = [_counts(validation) for validation in validations]
    rows: list[list[Cell]] = [
        [validation.name, *count, validation.largest_error] for validation, count in zip(validations, counts, strict=True)
    ]
    return Table(columns, rows, [["all", *(sum(column) for column in zip(*counts, strict=True)), None]])


def _counts(validation: Validation) -> list[int]:
    total, checks = len(validation.comparisons), len(validation.checks)
    verdicts = [validation.count_verdicts(verdict) for verdict in ("exact", "within tolerance", "missed")]
    return [total, total - checks, checks, *verdicts]


def context(validations: list[Validation]) -> dict[str, Any]:
    """Return the values that the template shows."""
    publications = [
        {
            **validation.publication.model_dump(include={"title", "url", "note"}),
            "figures": figure_table(validation),
            "remarks": remarks(validation),
        }
        for validation in validations
    ]
    return {"summary": summary_table(validations), "publications": publications}
