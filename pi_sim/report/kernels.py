"""The page on kernels: counts, seconds and exactness of stock CrypTen, SHAFT and lean, and the targets of lean."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from pi_sim import specs
from pi_sim.inference.bench.targets import LEAN, STOCK, lean_targets, stock_timing
from pi_sim.records import BenchRecord, BenchSize, RunRecord
from pi_sim.report import figures, frames, tables
from pi_sim.report.figures import Drawing
from pi_sim.report.tables import format_perplexity, label_protocol

LINEAR_MAPS = 4
"""The maps of a block, 12 times the width squared, over the one to queries, keys and values that is measured."""
AMOUNTS = ("bytes", "offline_bytes", "seconds", "online_seconds")


@dataclass(frozen=True)
class KernelData:
    """A benchmark, and runs under lean by model."""

    bench: BenchRecord
    runs: dict[str, RunRecord]

    @cached_property
    def operations(self) -> pd.DataFrame:
        """One row for each measured kernel, with amounts for each element."""
        frame = pd.DataFrame([row.model_dump() for row in self.bench.operations])
        return frame.assign(**{f"{key}_each": pd.to_numeric(frame[key]) / frame["elements"] for key in AMOUNTS})

    @cached_property
    def by_protocol(self) -> pd.DataFrame:
        """One row for each operation and protocol."""
        return self.operations.explode("protocols").drop_duplicates(["name", "protocols"], keep="last")

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row for each operation that both were measured for: stock CrypTen's columns end in _stock."""
        stock, lean = (self.by_protocol[self.by_protocol["protocols"] == name] for name in (STOCK, LEAN))
        pairs = stock.merge(lean, on="name", suffixes=("_stock", ""))
        for key in AMOUNTS:
            own, reference = pairs[key], pairs[f"{key}_stock"]
            pairs[f"{key}_ratio"] = (reference / own).where((own > 0) & (reference > 0))
        return pairs

    @cached_property
    def missing(self) -> list[str]:
        """Shipped models that were not run under lean."""
        weights = specs.data_root() / "models" / "weights"
        return sorted(
            {path.parent.name.rpartition("-")[0] for path in weights.glob("*/record.json")} - self.runs.keys()
        )


def load(folders: list[Path]) -> KernelData | None:
    """Load the last benchmark of these folders, and the runs under lean; None without a benchmark."""
    loaded = [record for _, record in frames.load_folders(folders)]
    benches = [record for record in loaded if isinstance(record, BenchRecord)]
    runs = [record for record in loaded if isinstance(record, RunRecord) and record.protocol == LEAN]
    return KernelData(benches[-1], {run.model: run for run in runs if run.agreement}) if benches else None


def context(data: KernelData) -> dict[str, Any]:
    bench, runs = data.bench, [record for _, record in sorted(data.runs.items())]
    linear = data.pairs[data.pairs["name"] == "linear"][["online_seconds_stock", "online_seconds"]]
    accuracy = frames.run_frame(runs)
    perplexities = {key: accuracy[key].map(format_perplexity) for key in ("plain", "private") if runs}
    return {
        "bench": bench,
        "full_size": bench.extent == BenchSize(),
        "targets": lean_targets(data.bench, data.runs, data.missing),
        "linear": (LINEAR_MAPS * linear.iloc[0]).tolist() if linear.notna().all(axis=None) and len(linear) else None,
        "linear_maps": LINEAR_MAPS,
        "block_ahead": max(
            (row.ahead_seconds or 0 for row in bench.models if row.protocol == LEAN and "block" in row.model), default=0
        ),
        "pairs": data.pairs,
        **_measured(data),
        "accuracy": accuracy.assign(**perplexities),
        "missing": data.missing,
        "runs": runs,
    }


def terminal_tables(bench: BenchRecord) -> str:
    """Render what was measured for a terminal."""
    return tables.render_template("bench.txt.j2", "table", **_measured(KernelData(bench, {})))


def _measured(data: KernelData) -> dict[str, Any]:
    """Return the rows of kernels, of models beside stock CrypTen, and of truncations."""
    models, truncations = (
        [{**row.model_dump(), "protocol_name": label_protocol(row.protocol)} for row in rows]
        for rows in (data.bench.models, data.bench.truncations)
    )
    for row, timing in zip(models, data.bench.models, strict=True):
        stock = stock_timing(data.bench, timing)
        fewer, faster = (stock.bytes / timing.bytes, stock.seconds / timing.seconds) if stock else (None, None)
        row["both_ways"] = sum(timing.bytes_by_party or (timing.bytes, timing.bytes))
        row |= {"fewer": fewer, "faster": faster} if stock != timing else {"fewer": None, "faster": None}
    names = data.operations["protocols"].map(lambda protocols: ", ".join(map(label_protocol, protocols)))
    return {"kernels": data.operations.assign(protocols=names), "models": models, "truncations": truncations}


def drawings(data: KernelData) -> dict[str, Drawing]:
    sent, seconds = dot_values(data, "bytes_each"), dot_values(data, "seconds_each", 1e6)
    values = {"kernels-bytes": (sent, "bytes an element"), "kernels-microseconds": (seconds, "µs an element")}
    return {name: partial(figures.dots_by_protocol, *pair) for name, pair in values.items() if pair[0]}


def dot_values(data: KernelData, key: str, factor: float = 1) -> dict[str, dict[str, float]]:
    """Return an amount by operation and protocol, where it is not zero."""
    rows = data.by_protocol[data.by_protocol[key].fillna(0) > 0]
    groups = rows.groupby("name", sort=False)
    return {str(name): dict(zip(group["protocols"], factor * group[key], strict=True)) for name, group in groups}
