"""The page on latency: models and lengths on a GPU and the CPU, stock CrypTen beside lean, with perplexities."""

from functools import partial
from pathlib import Path
from typing import Any

from pi_sim.inference.bench.targets import STOCK_MODELS
from pi_sim.records import LatencyRecord, LatencyRow
from pi_sim.report import figures, frames, tables
from pi_sim.report.figures import Drawing
from pi_sim.report.tables import format_perplexity, label_protocol


def load(folders: list[Path]) -> LatencyRecord | None:
    """Load the last record of latencies of these folders, None where there is none."""
    loaded = [record for _, record in frames.load_folders(folders) if isinstance(record, LatencyRecord)]
    return loaded[-1] if loaded else None


def context(record: LatencyRecord) -> dict[str, Any]:
    rows = table_rows(record)
    return {
        "record": record,
        "rows": rows,
        "skipped": [{**run.model_dump(), "protocol_name": label_protocol(run.protocol)} for run in record.skipped],
        "fastest": {
            device: max((row["faster"] for row in rows if row["device"] == device and row["faster"]), default=None)
            for device in dict.fromkeys(row["device"] for row in rows)
        },
    }


def table_rows(record: LatencyRecord) -> list[dict[str, Any]]:
    """Return a row for each run, with its ratio to stock CrypTen on the same device and to the CPU."""
    by_case = {_case(row): row for row in record.rows}
    rows = []
    for row in record.rows:
        stock = by_case.get((row.device, row.model, row.seq_len, STOCK_MODELS))
        cpu = by_case.get(("cpu", *_case(row)[1:]))
        quality, agreement = row.perplexity, row.agreement
        rows.append(
            {
                **row.model_dump(),
                "protocol_name": label_protocol(row.protocol),
                "both_ways": sum(row.bytes_by_party or (row.bytes, row.bytes)),
                "faster": stock.seconds / row.seconds if stock and stock is not row else None,
                "than_cpu": cpu.seconds / row.seconds if cpu and cpu is not row else None,
                "plain": format_perplexity(quality.plain) if quality else None,
                "private": format_perplexity(quality.private) if quality else None,
                "top1": agreement.top1 if agreement else None,
            }
        )
    return rows


def _case(row: LatencyRow) -> tuple[str, str, int, str]:
    return row.device, row.model, row.seq_len, row.protocol


def terminal_table(record: LatencyRecord) -> str:
    """Render what was measured for a terminal."""
    return tables.render_template("latency.txt.j2", "table", **context(record))


def drawings(record: LatencyRecord) -> dict[str, Drawing]:
    values: dict[str, dict[str, float]] = {}
    for row in record.rows:
        values.setdefault(f"{row.model}, {row.seq_len:,} tokens, {row.device}", {})[row.protocol] = row.seconds
    return {"latency": partial(figures.dots_by_protocol, values, "seconds a sequence")} if values else {}
