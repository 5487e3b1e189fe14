"""The page of a sweep: Pareto fronts of perplexity against seconds, and what has no price."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pi_sim import records
from pi_sim.cost.estimate import CONVENTIONS, SECONDS_WITH_COMPUTE, SECONDS_WITHOUT_COMPUTE, describe_tokens
from pi_sim.errors import UsageError
from pi_sim.grid.table import HEADER, SweepRow, comparable_seconds, csv_lines
from pi_sim.records import TrainingRecord
from pi_sim.report import frames, tables
from pi_sim.report.perplexities import default_folders
from pi_sim.report.statistics import Seeds, pareto_front
from pi_sim.report.tables import SECONDS
from pi_sim.zoo.source import CardModel, ModelSource

SCENARIO = ("corpus", "size", "seq_len", "batch", "past", "only_inner", "protocol")  # shared by compared designs


@dataclass(frozen=True)
class DesignComparison:
    """Designs that were trained alike, with the prices of one scenario under one protocol: a row for each network."""

    rows: pd.DataFrame

    @cached_property
    def designs(self) -> dict[str, Seeds]:
        """Perplexities of the designs, the best first."""
        seeds = dict(zip(self.rows["model"], self.rows["seeds"], strict=True))
        return dict(sorted(seeds.items(), key=lambda item: item[1].mean))

    @cached_property
    def networks(self) -> dict[str, dict[str, float]]:
        """Seconds of each design by network."""
        groups = self.rows.groupby("network", sort=False)
        return {str(name): dict(zip(group["model"], group["shown_seconds"], strict=True)) for name, group in groups}

    def front(self, network: str) -> list[str]:
        """Return the designs on the front, the fastest first."""
        seconds = self.networks[network]
        return pareto_front({model: (seconds[model], self.designs[model].mean) for model in seconds})


def load_qualities(folders: list[Path], sources: Iterable[ModelSource]) -> pd.DataFrame:
    """Load the perplexities of card models from the records below some folders, by the text of the training.

    A training counts if its design is its card's and its dimensions are the size's. Of its recipes the one that was
    repeated most often counts, the best of several such.
    """
    trainings = frames.training_frame(_training_records(folders)).drop_duplicates("plan")
    trainings = trainings[trainings["from_scratch"].astype(bool) & trainings["on_card"].astype(bool)]
    rows = []
    for source in {(source.name, source.label): source for source in sources}.values():
        if isinstance(source, CardModel):
            dimensions = frames.key_of(source.size.model_dump(exclude={"name", "title", "training"}))
            subject = {"model": source.name, "size": source.label, "dimensions": dimensions}
            chosen = trainings[(trainings[list(subject)] == pd.Series(subject)).all(axis=1)]
            for corpus, group in chosen.groupby("corpus", sort=False):
                text = group["record"].iloc[0].corpus
                recipes = [Seeds.of(perplexities) for _, perplexities in group.groupby("recipe")["perplexity"]]
                best = max(recipes, key=lambda seeds: (len(seeds.values), -seeds.mean))
                rows.append((source.name, source.label, corpus, text.name, text.tokens_seen, best))
    # A corpus is a key, a text its name.
    return pd.DataFrame(rows, columns=["model", "size", "corpus", "text", "trained_tokens", "seeds"])


def load_perplexities(folders: list[Path], sources: Iterable[ModelSource]) -> dict[tuple[str, str], float]:
    """Return the mean perplexity of trained designs by model and size, on the text that most of them share.

    Of several texts that is the one with the longest trainings.
    """
    qualities = load_qualities(folders, sources)
    if qualities.empty:
        return {}
    texts = qualities.groupby("corpus")["trained_tokens"].agg(["size", "max"]).sort_values(["size", "max"])
    rows = qualities[qualities["corpus"] == texts.index[-1]]
    return {(model, size): seeds.mean for model, size, seeds in rows[["model", "size", "seeds"]].to_numpy()}


def _training_records(folders: list[Path]) -> Iterator[tuple[Path, TrainingRecord]]:
    """Load every training below some folders; tokenizers, configs and estimates are JSON too."""
    for folder in folders:
        if not folder.is_dir() and folder not in default_folders():
            raise UsageError(f"there is no folder {folder} of records; choose another --records.")
        for path in sorted(folder.rglob("*.json")):
            is_training = False
            with suppress(OSError, ValueError, KeyError, TypeError):
                is_training = json.loads(path.read_text(encoding="utf-8"))["kind"] == "training"
            if is_training:
                yield path, records.load(path, TrainingRecord)


def compare_designs(answers: Iterable[SweepRow], qualities: pd.DataFrame) -> list[DesignComparison]:
    """Return every comparison of at least two designs that have a price and a finite perplexity."""
    prices = pd.DataFrame(answers, columns=list(SweepRow._fields)).dropna(subset="network_seconds")
    finite = qualities[[seeds.is_finite for seeds in qualities["seeds"]]]
    groups = finite.merge(prices, on=["model", "size"]).groupby(list(SCENARIO), sort=False, dropna=False)
    return [DesignComparison(_with_shown_seconds(group)) for _, group in groups if group["model"].nunique() > 1]


def _with_shown_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a comparison with seconds of one kind: with computing if all of them have it."""
    return rows.assign(shown_seconds=rows["network_seconds" if rows["seconds"].isna().any() else "seconds"])


def pareto_rows(rows: Iterable[SweepRow]) -> list[SweepRow]:
    """Return the rows on the Pareto fronts of perplexity and seconds, of all designs and protocols of a scenario.

    A scenario is a length, a batch, a cache and a network. Rows without a price or a perplexity are on no front.
    """
    groups: dict[tuple[Any, ...], list[SweepRow]] = {}
    for row in rows:
        if row.reason is None and row.perplexity is not None:
            groups.setdefault((row.seq_len, row.batch, row.past, row.only_inner, row.network), []).append(row)
    front: list[SweepRow] = []
    for group in groups.values():
        pairs = zip(comparable_seconds(group), group, strict=True)
        points = {str(index): (seconds, row.perplexity or 0.0) for index, (seconds, row) in enumerate(pairs)}
        front += [group[int(index)] for index in pareto_front(points)]
    return front


def render_rows(rows: list[SweepRow], style: tables.Format) -> str:
    """Render rows of a sweep; for people without the columns that only programs read."""
    if style == "json":
        return json.dumps([row._asdict() for row in rows], indent=2)
    if style == "csv":
        return f"{HEADER}{csv_lines(rows)}".rstrip("\n")
    columns: dict[str, Any] = {
        "model": "design", "size": "size", "tokens": "tokens", "protocol": "protocol", "network": "network",
        "perplexity": "perplexity", "rounds": ("rounds", tables.COUNT), "bytes": ("sent", tables.BYTES),
        "network_seconds": ("network only", SECONDS), "seconds": ("with computing", SECONDS), "reason": "no price",
    }  # fmt: skip
    lines = [
        {
            **row._asdict(),
            "tokens": describe_tokens(row.seq_len, row.batch, row.past),
            "perplexity": None if row.perplexity is None else tables.format_perplexity(row.perplexity),
        }
        for row in rows
    ]
    empty = {key for key in ("perplexity", "seconds", "reason") if all(line[key] is None for line in lines)}
    return tables.render(tables.tabulate(lines, {key: columns[key] for key in columns if key not in empty}), style)


def context(answers: list[SweepRow], compared: dict[str, DesignComparison]) -> dict[str, Any]:
    """Return the template's values; comparisons by the name of their figure."""
    frame = pd.DataFrame(answers, columns=list(SweepRow._fields))
    axes = {"design": "model", "size": "size", "length": "seq_len", "protocol": "protocol", "network": "network"}
    counts = {noun: frame[key].nunique() for noun, key in axes.items()}
    shown = {(size, model) for item in compared.values() for size, model in item.rows[["size", "model"]].to_numpy()}
    with_price = dict.fromkeys((answer.size, answer.model) for answer in answers if answer.reason is None)
    machines = dict.fromkeys(answer.machine for answer in answers if answer.compute_seconds is not None)
    seconds = [SECONDS_WITHOUT_COMPUTE] if any(answer.compute_seconds is None for answer in answers) else []
    seconds += [SECONDS_WITH_COMPUTE.format(machine) for machine in machines]
    return {
        "answers": answers,
        "axes": ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counts.items()),
        "comparisons": [_comparison_context(name, comparison) for name, comparison in compared.items()],
        "without_perplexity": [f"{model} ({size})" for size, model in with_price if (size, model) not in shown],
        "reasons": frame["reason"].dropna().value_counts(sort=False).to_dict(),
        "conventions": [text for s in CONVENTIONS for text in (seconds if s == SECONDS_WITHOUT_COMPUTE else [s])],
    }


def _comparison_context(name: str, comparison: DesignComparison) -> dict[str, Any]:
    scenario, networks = comparison.rows.iloc[0], comparison.networks
    past = None if pd.isna(scenario["past"]) else int(scenario["past"])
    tokens = describe_tokens(scenario["seq_len"], scenario["batch"], past)
    fronts, rows = {network: comparison.front(network) for network in networks}, []
    for model, seeds in comparison.designs.items():
        costs = {network: seconds.get(model) for network, seconds in networks.items()}
        on_front = ", ".join(network for network, models in fronts.items() if model in models)
        rows.append({"model": model, **seeds.summary(), **costs, "front": on_front})
    columns = {**{network: (network, SECONDS) for network in networks}, "front": "on the Pareto front of"}
    title = {"figure": name, "fronts": fronts, "tokens": tokens + (", inner" if scenario["only_inner"] else "")}
    return {**scenario[["protocol", "size", "text", "trained_tokens"]], **title, "columns": columns, "rows": rows}
