"""The page on kernels: counts, seconds and exactness of stock CrypTen, SHAFT and lean, and the targets of lean."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from pi_sim import specs
from pi_sim.records import BenchRecord, BenchSize, ModelTiming, RunRecord
from pi_sim.report import figures, frames, tables
from pi_sim.report.figures import Drawing
from pi_sim.report.tables import format_perplexity

STOCK, STOCK_MODELS, LEAN = "crypten", "crypten_tanh", "lean"
"""Stock CrypTen, of whose GELUs only the one by tanh can serve a model, and our protocol."""
ELEMENT_TARGETS = {"relu": (14, 6), "gelu": (60, 10), "softmax": (100, 60), "tanh": (30, 7)}
"""At most so many bytes an element and rounds."""
FEWER_BYTES, FEWER_ROUNDS, FASTER = 8.0, 1.5, 4.0
"""At least so many times less than stock CrypTen: a block's bytes and rounds, any model's seconds."""
PRODUCTS, SEQUENCES = 10**8, 100
DRIFT, TOP1 = 0.001, 0.99
LINEAR_MAPS = 4
"""The maps of a block, 12 times the width squared, over the one to queries, keys and values that is measured."""


@dataclass(frozen=True)
class KernelData:
    """A benchmark, and runs under lean by model."""

    bench: BenchRecord
    runs: dict[str, RunRecord]

    @cached_property
    def operations(self) -> pd.DataFrame:
        """One row for each measured kernel, with amounts for each element."""
        frame = pd.DataFrame([row.model_dump() for row in self.bench.operations])
        each = {key: pd.to_numeric(frame[key]) / frame["elements"] for key in AMOUNTS}
        return frame.assign(**{f"{key}_each": values for key, values in each.items()})

    @cached_property
    def by_protocol(self) -> pd.DataFrame:
        """One row for each operation and protocol."""
        return self.operations.explode("protocols").drop_duplicates(["name", "protocols"], keep="last")

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row for each operation that both were measured for: stock CrypTen's columns end in _stock."""
        stock, lean = (self.by_protocol[self.by_protocol["protocols"] == name] for name in (STOCK, LEAN))
        pairs = stock.merge(lean, on="name", suffixes=("_stock", ""))
        return pairs.assign(**{f"{key}_ratio": ratio(pairs[f"{key}_stock"], pairs[key]) for key in AMOUNTS})

    def stock(self, timing: ModelTiming) -> ModelTiming | None:
        """Return the run of the same model with the same dealer under stock CrypTen."""
        key = (timing.model, timing.dealer, STOCK_MODELS)
        return next((row for row in self.bench.models if (row.model, row.dealer, row.protocol) == key), None)

    @cached_property
    def missing(self) -> list[str]:
        """Shipped models that were not run under lean."""
        weights = specs.facts() / "models" / "weights"
        shipped = sorted(path.parent.name.rpartition("-")[0] for path in weights.glob("*/record.json"))
        return [model for model in shipped if model not in self.runs]


AMOUNTS = ("bytes", "offline_bytes", "seconds", "online_seconds")


def ratio(stock: Any, lean: Any) -> Any:
    """Return how many times less lean is; NaN where there is nothing to divide."""
    return (stock / lean).where((stock > 0) & (lean > 0))


def load(folders: list[Path]) -> KernelData | None:
    """Load the last benchmark of these folders, and the runs under lean; None without a benchmark."""
    bench, runs = None, {}
    for _, record in frames.load_folders(folders):
        if isinstance(record, BenchRecord):
            bench = record
        elif isinstance(record, RunRecord) and record.protocol == LEAN and record.agreement:
            runs[record.model] = record
    return KernelData(bench, runs) if bench else None


def context(data: KernelData) -> dict[str, Any]:
    """Return the values that the template shows."""
    bench, runs = data.bench, [record for _, record in sorted(data.runs.items())]
    linear = data.pairs[data.pairs["name"] == "linear"][["online_seconds_stock", "online_seconds"]]
    accuracy = frames.run_frame((Path(), record) for record in runs)
    return {
        "extent": bench.extent.model_dump(),
        "full_size": bench.extent == BenchSize(),
        "targets": list(targets(data)),
        "linear": (LINEAR_MAPS * linear.iloc[0]).tolist() if linear.notna().all(axis=None) and len(linear) else None,
        "linear_maps": LINEAR_MAPS,
        "pairs": data.pairs,
        "timed": data.pairs[data.pairs["seconds_stock"].notna()],
        **_measured(data),
        "accuracy": accuracy.assign(
            **{key: accuracy[key].map(format_perplexity) for key in ("plain", "private") if runs}
        ),
        "missing": data.missing,
        "commands": list(map(frames.command_line, runs)),
        "environment": frames.environment(bench),
        "threads": bench.threads,
        "load": bench.load,
    }


def terminal_tables(bench: BenchRecord) -> str:
    """Render what was measured for a terminal."""
    return tables.render_template("bench.txt.j2", "table", **_measured(KernelData(bench, {})))


def _measured(data: KernelData) -> dict[str, Any]:
    """Return the rows of kernels, of models beside stock CrypTen, and of truncations."""
    models = []
    for timing in data.bench.models:
        stock = data.stock(timing)
        compared = stock if stock and stock != timing else None
        fewer = compared.bytes / timing.bytes if compared else None
        models.append({**timing.model_dump(), "fewer": fewer, "faster": compared and compared.seconds / timing.seconds})
    kernels = data.operations.assign(protocols=data.operations["protocols"].map(", ".join))
    return {"kernels": kernels, "models": models, "truncations": [row.model_dump() for row in data.bench.truncations]}


# ---- targets


def targets(data: KernelData) -> Iterator[dict[str, str]]:
    """Yield every target of lean that something was measured for."""
    pairs = data.pairs.set_index("name").to_dict("index")
    for name, (most, rounds) in ELEMENT_TARGETS.items():
        if row := pairs.get(name):
            lean = f"{row['bytes_each']:,.1f} bytes and {row['rounds']} rounds"
            result = f"{lean}; stock {row['bytes_each_stock']:,.1f} and {row['rounds_stock']}"
            is_met = row["bytes_each"] <= most and row["rounds"] <= rounds
            yield _target(name, f"at most {most} bytes an element and {rounds} rounds", result, is_met)
    for timing in data.bench.models:
        stock = data.stock(timing)
        if timing.protocol == LEAN and stock:
            yield from _model_targets(timing, stock)
    for test in data.bench.truncations:
        if test.protocol == LEAN:
            is_met = not test.wrong and test.number >= PRODUCTS
            subject, result = f"products of factors up to {test.bound}", f"{test.wrong:,} of {test.number:,}"
            yield _target(subject, f"none of {PRODUCTS:,} wrong", result, is_met)
    aim = f"perplexity within {DRIFT:.1%}, likeliest token above {TOP1:.0%}, nothing destroyed in {SEQUENCES} sequences"
    for model, record in sorted(data.runs.items()):
        if record.agreement:
            drift, top1, corrupted = record.drift, record.agreement.top1, record.agreement.corrupted_positions
            is_met = drift is not None and abs(drift) <= DRIFT and top1 > TOP1 and not corrupted
            change = "beyond all numbers" if drift is None else f"{drift:+.3%}"
            result = f"{change}, {top1:.2%}, {corrupted} in {record.sequences}"
            yield _target(model, aim, result, is_met and record.sequences >= SEQUENCES)
    yield from (_target(model, aim, "", None) for model in data.missing)


def _target(subject: str, aim: str, result: str, is_met: bool | None) -> dict[str, str]:
    verdict = "not measured" if is_met is None else "met" if is_met else "missed"
    return {"subject": subject, "target": aim, "result": result, "verdict": verdict}


def _model_targets(timing: ModelTiming, stock: ModelTiming) -> Iterator[dict[str, str]]:
    """Yield a block's counts, which do not depend on the dealer, and any model's seconds, which do."""
    if "block" in timing.model and timing.dealer == "first-party":
        fewer, shorter = stock.bytes / timing.bytes, stock.rounds / timing.rounds
        yield _target(timing.model, f"{FEWER_BYTES:g} times fewer bytes", f"{fewer:.1f} times", fewer >= FEWER_BYTES)
        aim = f"{FEWER_ROUNDS:g} times fewer rounds"
        yield _target(timing.model, aim, f"{shorter:.2f} times", shorter >= FEWER_ROUNDS)
    faster = stock.seconds / timing.seconds
    subject = f"{timing.model}, dealer {timing.dealer}"
    yield _target(subject, f"{FASTER:g} times faster", f"{faster:.1f} times", faster >= FASTER)


def drawings(data: KernelData) -> dict[str, Drawing]:
    """Return every figure that something was measured for, by name."""
    sent, seconds = dot_values(data, "bytes_each"), dot_values(data, "seconds_each", 1e6)
    drawn: dict[str, Drawing] = {}
    if sent:
        drawn["kernels-bytes"] = partial(figures.dots_by_protocol, sent, "bytes an element")
    if seconds:
        drawn["kernels-microseconds"] = partial(figures.dots_by_protocol, seconds, "µs an element")
    return drawn


def dot_values(data: KernelData, key: str, factor: float = 1) -> dict[str, dict[str, float]]:
    """Return an amount by operation and protocol, where it is not zero."""
    rows = data.by_protocol[data.by_protocol[key].fillna(0) > 0]
    return {
        str(name): dict(zip(group["protocols"], factor * group[key], strict=True))
        for name, group in rows.groupby("name", sort=False)
    }
