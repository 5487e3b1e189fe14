"""Published figures beside ours, as tables, as data and as a page."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from pi_sim.report import figures, tables
from pi_sim.report.pages import render_page, write_page
from pi_sim.report.tables import Format, tabulate
from pi_sim.specs.protocols import BYTES_PER_UNIT
from pi_sim.validation import Validation

KEYS = (
    *("source", "row", "table", "protocol", "figure", "published", "ours", "unit", "counted", "error", "provenance"),
    *("role", "tolerance", "verdict", "reason"),
)
"""The columns that programs get of each figure."""
UNEXPLAINED = 0.01  # an error beyond this is worth a reason


def comparison_frame(validations: list[Validation]) -> pd.DataFrame:
    """Build one row for each published figure; whole numbers stay whole."""
    rows = []
    for source, comparison in ((validation.name, row) for validation in validations for row in validation.comparisons):
        claim, quantity = comparison.claim, comparison.quantity
        unit = {"rounds": "", "seconds": "s"}.get(quantity, claim.unit)
        # Bytes for bytes, whatever unit was printed.
        scale = BYTES_PER_UNIT[claim.unit] if quantity in ("bytes", "offline") else 1.0
        values = (
            *(source, claim.name, claim.source, claim.protocol, quantity, comparison.published, comparison.predicted),
            *(unit, claim.counted, comparison.error, comparison.provenance, claim.role, comparison.tolerance),
            *(comparison.verdict, claim.reason),
        )
        row: dict[str, Any] = dict(zip(KEYS, values, strict=True))
        for key in ("published", "ours"):
            row[f"{key}_text"] = f"{row[key]:,.{comparison.decimals}f} {unit}".strip()
            row[f"{key}_size"] = row[key] * scale
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def write_validations(validations: list[Validation], out: Path) -> list[Path]:
    """Write the page and its figure."""
    plots = {"validation": partial(figures.published_scatter, comparison_frame(validations))}
    return write_page(out / "validation.md", "validation", context(validations), plots)


def render_validations(validations: list[Validation], style: Format) -> str:
    """Render all validations: sections and a summary, or the page, one tidy table, or JSON."""
    if style == "markdown":
        return render_page("validation", context(validations), ["validation"])
    if style == "csv":
        return tables.render(tabulate(comparison_frame(validations), {key: key for key in KEYS}), "csv")
    if style == "json":
        documents = []
        for validation in validations:
            rows = comparison_frame([validation])[list(KEYS)].to_dict("records")
            publication = validation.publication.model_dump(include={"title", "url"})
            documents.append({"source": validation.name, **publication, "rows": rows})
        return json.dumps(documents, indent=2)
    return tables.render_template("validation.txt.j2", style, **context(validations))


def context(validations: list[Validation]) -> dict[str, Any]:
    """Return the values that the templates show; errors above one in a hundred have their suspected reason."""
    summary, publications = [], []
    for validation in validations:
        total, checks = len(validation.comparisons), len(validation.checks)
        counts = {"figures": total, "fitted": total - checks, "checked": checks}
        verdicts = {key.split()[0]: validation.count_verdicts(key) for key in ("exact", "within tolerance", "missed")}
        summary.append({"source": validation.name, **counts, **verdicts, "largest": validation.largest_error})
        rows, publication = validation.comparisons, validation.publication.model_dump(include={"title", "url", "note"})
        reasons = {row.claim.name: row.claim.reason for row in rows if abs(row.error) > UNEXPLAINED}
        computing = sorted({row.compute_seconds for row in rows if row.compute_seconds is not None})
        publication |= {"reasons": reasons, "computing": computing}
        publications.append({**publication, "figures": comparison_frame([validation])})
    sums = pd.DataFrame(summary).drop(columns=["source", "largest"]).sum().to_dict()
    return {"summary": summary, "total": {"source": "all", **sums, "largest": None}, "publications": publications}
