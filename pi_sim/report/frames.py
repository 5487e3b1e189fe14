"""Data frames from typed records: runs, what each operation of a run costs, and trainings."""

import json
import math
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pi_sim import records, specs
from pi_sim.records import Agreement, Record, RunRecord, TrainingRecord
from pi_sim.records.models import held_out_perplexity
from pi_sim.report.perplexities import RECORDS
from pi_sim.report.statistics import Seeds, claim_verdict, compare_ranges, order_verdict
from pi_sim.report.tables import format_change, format_perplexity, label_protocol
from pi_sim.report.terminal import equality

PUBLISHED = tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))
""" "designs" of papers with their changes of the perplexity, "claims" about them, and "sources"."""
DESIGNS = ("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm")
"""The four designs in the papers' order; other models follow by name."""


def published_change(model: str) -> float | None:
    """Return the change of a design's perplexity in its paper: NaN where it diverged, None where none is printed."""
    row: dict[str, float] = PUBLISHED["designs"].get(model, {})
    if "loss" in row:
        return math.exp(row["loss"] - row["base_loss"]) - 1
    return row["perplexity"] / row["base"] - 1 if "base" in row else row.get("change")


def compare_claims(page: str, seeds: dict[str, Seeds]) -> list[dict[str, Any]]:
    """Compare a page's published claims about two trained designs, the better one first, with the seeds' means."""
    rows = []
    for better, worse in PUBLISHED["claims"][page]:
        if {better, worse} <= seeds.keys():
            first, second = seeds[better], seeds[worse]
            base, other = (1 + (published_change(model) or 0.0) for model in (better, worse))
            published = other / base - 1
            row: dict[str, Any] = {"designs": (better, worse), "claim": f"{better} ahead of {worse}"}
            row |= {"published_change": published, "published": f"{published:+.1%}"}
            row |= {"change": second.mean / first.mean - 1, "here": second.change(first)}
            row |= {"means": f"{format_perplexity(first.mean)} and {format_perplexity(second.mean)}"}
            row |= {"ranges": compare_ranges(first, second), "order": order_verdict(first, second)}
            rows.append({**row, "verdict": claim_verdict(first, second, published)})
    return rows


def describe_changes(values: dict[str, Any], usual: dict[str, Any]) -> list[str]:
    """Return "key value for usual value" for each key whose value is not the usual one."""

    def show(value: Any) -> str:
        return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    return [f"{key} {show(values[key])} for {show(usual[key])}" for key in sorted(values) if values[key] != usual[key]]


def load_folders(folders: Iterable[Path]) -> Iterator[tuple[Path, Record]]:
    """Load every record of some folders, folder by folder; a `UsageError` for a damaged one."""
    for folder in folders:
        yield from ((path, records.load(path)) for path in sorted(folder.glob("*.json")))


def design_rank(model: str, order: tuple[str, ...] = DESIGNS) -> tuple[int, str]:
    """Return a key that sorts models as the papers do, all others by name behind them."""
    return order.index(model) if model in order else len(order), model


def run_frame(runs: Iterable[RunRecord]) -> pd.DataFrame:
    """Build one row for each run: the keys of its record, nested ones joined by _, and what follows from them."""
    rows = []
    for record in runs:
        total, measured, agreement, compared = record.total, record.measured, record.agreement, record.compared
        quality = record.perplexity
        expected = total.seconds.get(record.network)
        corrupted = agreement.corrupted_positions if agreement else 0
        privacy = None if compared.plain is None else "wrong"
        if compared.plain and compared.private and not record.is_wrong:
            lost = f", {corrupted} positions corrupted" if corrupted else ""
            privacy = format_change(compared.private, compared.plain) + lost
        rows.append(
            {
                **record.model_dump(exclude={"rows", "conventions", "argv", "versions", "agreement"}),
                "agreement": agreement.model_dump() if agreement else dict.fromkeys(Agreement.model_fields),
                "record": record,
                "protocol_name": label_protocol(record.protocol),
                "tokens": record.sequences * record.seq_len,
                "plain": (quality.plain or math.inf) if quality and agreement else None,
                "private": (quality.private or math.inf) if quality else None,
                "drift": record.drift,
                "privacy": privacy,
                "wrong": record.is_wrong,
                "rounds_equal": equality(total.rounds, measured.rounds),
                "bytes_equal": equality(total.bytes, measured.bytes),
                "expected": expected,
                "network_ratio": measured.communication_seconds / expected if expected else None,
                "imitated": "none imitated" if record.network == "none" else record.network,
            }
        )
    return pd.json_normalize(rows, sep="_") if rows else pd.DataFrame()


def operation_frame(runs: pd.DataFrame, key: str) -> pd.DataFrame:
    """Build the rounds or bytes by run and operation that is not free, the largest first; NaN where a run lacks it."""
    rows = [(run, row.op, row.rounds, row.bytes) for run, record in runs["record"].items() for row in record.rows]
    sums = pd.DataFrame(rows, columns=["run", "op", "rounds", "bytes"]).groupby(["run", "op"]).sum()
    costly = sums[(sums > 0).any(axis=1)][key].unstack("op")
    order = sorted(costly.columns, key=lambda op: (-costly[op].max(), op))
    return costly.reindex(index=runs.index, columns=order)


def training_frame(trainings: Iterable[tuple[Path, TrainingRecord]]) -> pd.DataFrame:
    """Build one row for each training; plan, design, dimensions, recipe and corpus are keys that decide its result."""
    weights, rows = specs.data_root() / "models" / "weights", []
    for path, record in trainings:
        keys = {"card", "size", "architecture", "dimensions", "recipe", "seed", "corpus"}
        plan = record.model_dump(mode="json", include=keys)
        plan["corpus"] = {key: plan["corpus"][key] for key in ("sha256", "tokens_seen")}
        perplexity, model, size = held_out_perplexity(record.held_out), record.card, record.size
        usual = None
        if model in specs.list_names("models") and size in specs.list_names("models/sizes"):
            changes = specs.load_model_card(model).training.get(size, {})
            usual = {**specs.load_size(size).training.model_dump(mode="json"), **changes}
        is_usual = plan["architecture"] == card_design(model), plan["recipe"] == usual
        parts = (key_of(plan[part]) for part in ("architecture", "dimensions", "recipe", "corpus"))
        row = (path, record, path.is_relative_to(weights), model, size, record.seed, record.origin is None, perplexity)
        rows.append((*row, math.isinf(perplexity), record.corpus.sha256, *is_usual, key_of(plan), *parts))
    columns = ["path", "record", "shipped", "model", "size", "seed", "from_scratch", "perplexity", "diverged", "text"]
    columns += ["on_card", "usual_recipe", "plan", "design", "dimensions", "recipe", "corpus"]
    return pd.DataFrame(rows, columns=columns)


def key_of(value: Any) -> str:
    """Return a value as a key that compares equal for equal JSON."""
    return json.dumps(value, sort_keys=True)


def card_design(model: str) -> dict[str, Any] | None:
    """Return the architecture on a model's card; None for a model without one."""
    if model not in specs.list_names("models"):
        return None
    return specs.load_model_card(model).architecture.model_dump(mode="json")


def reference_trainings(trainings: pd.DataFrame) -> pd.DataFrame:
    """Choose the training that stands for each model, with the perplexities of all its seeds.

    That is the shipped one, else the first seed of the usual design and recipe. Its seeds differ in nothing else.
    """
    keys, ascending = ["shipped", "on_card", "usual_recipe", "seed", "name"], [False, False, False, True, True]
    named = trainings.assign(name=trainings["path"].map(lambda path: path.name))
    chosen = named.sort_values(keys, ascending=ascending).drop_duplicates("model").set_index("model", drop=False)
    alike = ["design", "dimensions", "recipe", "corpus"]
    seeds: list[Any] = [Seeds.of(same_but(trainings, row, alike)["perplexity"]) for _, row in chosen.iterrows()]
    return chosen.assign(seeds=pd.Series(seeds, chosen.index, dtype=object))


def same_but(trainings: pd.DataFrame, reference: Any, alike: list[str]) -> pd.DataFrame:
    """Return the trainings of the reference's model and size that equal it in some columns."""
    keys = ["model", "size", *alike]
    same: pd.DataFrame = trainings[(trainings[keys] == reference[keys]).all(axis=1)]
    return same


def setup(trainings: pd.DataFrame) -> dict[str, Any]:
    """Return dimensions, text and recipe of the first of some trainings, and what they do not share."""
    first, trained = trainings["record"].iloc[0], [record.trained_parameters for record in trainings["record"]]
    return {
        **first.dimensions.model_dump(),
        "recipe": first.recipe.model_dump(),
        "parameters": [record.parameters for record in trainings["record"]],
        "trained": trained if all(trained) else None,
        "tokens": first.corpus.tokens_seen,
        "corpus": first.corpus.name,
        "differing": [part for part in ("dimensions", "recipe", "corpus") if trainings[part].nunique() > 1],
    }


def training_commands(path: Path, record: TrainingRecord, folder: Path = RECORDS) -> list[str]:
    """Return the command of a training, and of copying its record to where pages are made from."""
    if record.argv is None:
        return []
    out = record.argv[record.argv.index("--out") + 1]
    return [record.command, f"cp {out}/record.json {folder / path.name}"]
