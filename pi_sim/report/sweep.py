"""The page of a sweep: Pareto fronts of perplexity against seconds, and what has no price."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from pi_sim import records, specs
from pi_sim.cost.estimate import CONVENTIONS, SECONDS_WITH_COMPUTE, SECONDS_WITHOUT_COMPUTE
from pi_sim.errors import UsageError
from pi_sim.records import TrainingRecord
from pi_sim.report import figures, frames
from pi_sim.report.estimates import describe_tokens
from pi_sim.report.figures import Drawing
from pi_sim.report.statistics import Seeds, pareto_front
from pi_sim.report.tables import SECONDS
from pi_sim.specs import configs
from pi_sim.sweep.answers import SweepRow


@dataclass(frozen=True)
class Quality:
    """Held-out perplexities of designs of one size, trained from scratch on as much of one text."""

    size: str
    corpus: str
    tokens: int
    perplexities: dict[str, Seeds]


@dataclass(frozen=True)
class DesignComparison:
    """Designs that were trained alike, with the prices of one scenario under one protocol."""

    quality: Quality
    prices: list[SweepRow]

    @cached_property
    def designs(self) -> dict[str, Seeds]:
        """Perplexities of the designs, the best first."""
        seeds = {price.model: self.quality.perplexities[price.model] for price in self.prices}
        return dict(sorted(seeds.items(), key=lambda item: item[1].mean))

    @cached_property
    def networks(self) -> dict[str, dict[str, float]]:
        """Seconds of each design by network."""
        seconds: dict[str, dict[str, float]] = {}
        for price in self.prices:
            seconds.setdefault(price.network, {})[price.model] = price.seconds or 0.0
        return seconds

    def front(self, network: str) -> list[str]:
        """Return the designs on the front, the fastest first."""
        seconds = self.networks[network]
        return pareto_front({model: (seconds[model], self.designs[model].mean) for model in seconds})


def default_folders() -> list[Path]:
    """Return the folders of records that came with pi-sim, or were made beside it."""
    return [specs.data_root() / "models" / "weights", frames.RECORDS]


def load_qualities(folders: list[Path], subjects: Iterable[tuple[str, str]]) -> list[Quality]:
    """Load the perplexities of models and sizes from the records below some folders: one for each size and text.

    A training counts if its design is its card's and its dimensions are the size's.
    """
    trainings = frames.training_frame(_training_records(folders)).drop_duplicates("plan", keep="last")
    groups: dict[tuple[Any, ...], dict[str, pd.DataFrame]] = {}
    for model, size in dict.fromkeys(subjects):
        if configs.config_text(model) is None:
            dimensions = specs.load_size(size).model_dump(exclude={"name", "title", "training"})
            alike = trainings["from_scratch"] & trainings["on_card"] & (trainings["model"] == model)
            chosen = trainings[alike & (trainings["dimensions"] == frames.key_of(dimensions))]
            for corpus, group in chosen[chosen["size"] == size].groupby("corpus", sort=False):
                groups.setdefault((size, corpus), {})[model] = group
    return [_quality(size, models) for (size, _), models in groups.items()]


def _training_records(folders: list[Path]) -> Iterator[tuple[Path, TrainingRecord]]:
    """Load every training below some folders; tokenizers, configs and estimates are JSON too."""
    for folder in folders:
        if not folder.is_dir() and folder not in default_folders():
            raise UsageError(f"there is no folder {folder} of records; choose another --records.")
        yield from (
            (path, records.load(path, TrainingRecord)) for path in sorted(folder.rglob("*.json")) if _is_training(path)
        )


def _is_training(path: Path) -> bool:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["kind"]) == "training"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _quality(size: str, models: dict[str, pd.DataFrame]) -> Quality:
    """Take the seeds of the recipe that was repeated most often, the best of several such."""
    corpus = next(iter(models.values()))["record"].iloc[0].corpus
    recipes = {model: [frames.seeds_of(group) for _, group in rows.groupby("recipe")] for model, rows in models.items()}
    best = {model: max(seeds, key=lambda s: (len(s.values), -s.mean)) for model, seeds in recipes.items()}
    return Quality(size, corpus.name, corpus.tokens_seen, best)


def comparisons(answers: Iterable[SweepRow], qualities: list[Quality]) -> Iterator[DesignComparison]:
    """Yield every comparison of at least two designs that have a price and a perplexity."""
    prices = [answer for answer in answers if answer.seconds is not None]
    for quality in qualities:
        groups: dict[tuple[object, ...], list[SweepRow]] = {}
        for price in prices:
            seeds = quality.perplexities.get(price.model) if price.size == quality.size else None
            if seeds and seeds.is_finite:
                groups.setdefault((*price[1:6], price.protocol), []).append(price)
        compared = (DesignComparison(quality, group) for group in groups.values())
        yield from (comparison for comparison in compared if len(comparison.designs) > 1)


def context(answers: list[SweepRow], compared: dict[str, DesignComparison]) -> dict[str, Any]:
    """Return the values that the template shows; comparisons by the name of their figure."""
    axes = {"design": "model", "size": "size", "length": "seq_len", "protocol": "protocol", "network": "network"}
    counts = [(len({getattr(answer, key) for answer in answers}), noun) for noun, key in axes.items()]
    shown = {(comparison.quality.size, model) for comparison in compared.values() for model in comparison.designs}
    with_price = dict.fromkeys((answer.size, answer.model) for answer in answers if answer.seconds is not None)
    return {
        "estimates": len(answers),
        "axes": ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for count, noun in counts),
        "unpriced": sum(answer.seconds is None for answer in answers),
        "comparisons": [_comparison_context(name, comparison) for name, comparison in compared.items()],
        "without_perplexity": [f"{model} ({size})" for size, model in with_price if (size, model) not in shown],
        "reasons": dict(Counter(answer.reason for answer in answers if answer.reason)),
        "conventions": list(_conventions(answers)),
    }


def _comparison_context(name: str, comparison: DesignComparison) -> dict[str, Any]:
    price, quality, networks = comparison.prices[0], comparison.quality, comparison.networks
    tokens = describe_tokens(price.seq_len, price.batch, price.past) + (", inner" if price.only_inner else "")
    rows = [
        {
            "model": model,
            **seeds.summary(),
            **{network: seconds.get(model) for network, seconds in networks.items()},
            "front": ", ".join(network for network in networks if model in comparison.front(network)),
        }
        for model, seeds in comparison.designs.items()
    ]
    scenario = {"protocol": price.protocol, "tokens": tokens, "size": quality.size}
    training = {"trained_tokens": quality.tokens, "corpus": quality.corpus}
    columns = {**{network: (network, SECONDS) for network in networks}, "front": "on the front of"}
    return {"figure": name, **scenario, **training, "columns": columns, "rows": rows}


def _conventions(answers: list[SweepRow]) -> Iterator[str]:
    """Yield what the numbers mean, with and without seconds of computing."""
    computed = {SECONDS_WITH_COMPUTE.format(answer.machine): None for answer in answers if answer.compute_seconds is not None}
    alone = {SECONDS_WITHOUT_COMPUTE: None} if any(answer.compute_seconds is None for answer in answers) else {}
    for sentence in CONVENTIONS:
        yield from {**alone, **computed} if sentence == SECONDS_WITHOUT_COMPUTE else [sentence]


def drawings(compared: dict[str, DesignComparison]) -> dict[str, Drawing]:
    """Return one figure for each comparison, by name."""
    return {name: partial(figures.pareto_fronts, comparison) for name, comparison in compared.items()}
