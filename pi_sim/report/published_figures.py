"""Published figures beside ours, as tables, as data and as a page."""

import json
from typing import Any

import pandas as pd

from pi_sim.report import tables
from pi_sim.report.tables import Format, tabulate
from pi_sim.validation import Comparison, Validation

KEYS = (
    *("source", "row", "table", "protocol", "figure", "published", "ours", "unit", "counted", "error", "provenance"),
    *("role", "tolerance", "verdict", "reason"),
)
"""The columns that programs get of each figure."""
UNEXPLAINED = 0.01
"""An error beyond this is worth a reason."""


def comparison_frame(validations: list[Validation]) -> pd.DataFrame:
    """Build one row for each published figure; whole numbers stay whole."""
    rows = [_row(validation.name, row) for validation in validations for row in validation.comparisons]
    return pd.DataFrame(rows, dtype=object)


def _row(source: str, comparison: Comparison) -> dict[str, Any]:
    claim, quantity = comparison.claim, comparison.quantity
    unit = {"rounds": "", "seconds": "s"}.get(quantity, claim.unit)
    # Bytes for bytes, whatever unit was printed.
    scale = claim.bytes_per_unit if quantity in ("bytes", "offline") else 1.0
    values = (
        *(source, claim.name, claim.source, claim.protocol, quantity, comparison.published, comparison.predicted, unit),
        *(claim.counted, comparison.error, comparison.provenance, claim.role, comparison.tolerance),
        *(comparison.verdict, claim.reason),
    )
    numbers = {"published": comparison.published, "ours": comparison.predicted}
    return {
        **dict(zip(KEYS, values, strict=True)),
        **{f"{key}_text": f"{number:,.{comparison.decimals}f} {unit}".strip() for key, number in numbers.items()},
        **{f"{key}_size": number * scale for key, number in numbers.items()},
    }


def render_validations(validations: list[Validation], style: Format) -> str:
    """Render all validations: sections and a summary, or the page without its figure, one tidy table, or JSON."""
    if style == "csv":
        return tables.render(tabulate(comparison_frame(validations), {key: key for key in KEYS}), "csv")
    if style == "json":
        documents = [
            {
                "source": validation.name,
                **validation.publication.model_dump(include={"title", "url"}),
                "rows": comparison_frame([validation])[list(KEYS)].to_dict("records"),
            }
            for validation in validations
        ]
        return json.dumps(documents, indent=2)
    return tables.render_template("validation.txt.j2", style, **context(validations))


def context(validations: list[Validation]) -> dict[str, Any]:
    """Return the values that the templates show."""
    summary = [_summary_row(validation) for validation in validations]
    counts = pd.DataFrame(summary).drop(columns=["source", "largest"]).sum()
    publications = [
        {
            **validation.publication.model_dump(include={"title", "url", "note"}),
            "figures": comparison_frame([validation]),
            "remarks": _remarks(validation),
        }
        for validation in validations
    ]
    total = {"source": "all", **counts.to_dict(), "largest": None}
    return {"summary": summary, "total": total, "publications": publications}


def _summary_row(validation: Validation) -> dict[str, Any]:
    total, checks = len(validation.comparisons), len(validation.checks)
    counts = {"figures": total, "fitted": total - checks, "checked": checks}
    verdicts = {key.split()[0]: validation.count_verdicts(key) for key in ("exact", "within tolerance", "missed")}
    return {"source": validation.name, **counts, **verdicts, "largest": validation.largest_error}


def _remarks(validation: Validation) -> list[str]:
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
