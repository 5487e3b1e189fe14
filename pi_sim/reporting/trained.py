"""What designs are worth: perplexities of trainings that can be compared with one another."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.records import JsonObject
from pi_sim.reporting.recorded import Training, read
from pi_sim.reporting.seeds import Seeds
from pi_sim.specs import configs

REPORTS = Path("reports/records")


@dataclass(frozen=True)
class Quality:
    """Held-out perplexities of designs of one size, trained from scratch on as much of one text."""

    size: str
    corpus: str
    tokens: int
    perplexities: dict[str, Seeds]


def shipped() -> list[Path]:
    """Where records lie that came with pi-sim, or were made beside it."""
    return [specs.facts() / "models" / "weights", REPORTS]


def gather(sources: list[Path], subjects: Iterable[tuple[str, str]]) -> list[Quality]:
    """What the records below some folders tell of models and sizes: one for each size and text.

    A training counts if its design is its card's and its dimensions are the size's.
    """
    trainings = list(_trainings(sources))
    found: dict[tuple[str, str, int], dict[str, list[Training]]] = {}
    for model, size in dict.fromkeys(subjects):
        for each in trainings:
            if configs.text(model) is None and _is_of(each.record, specs.model_card(model), specs.size(size)):
                text = each.record["corpus"]
                alike = found.setdefault((size, text["sha256"], text["tokens_seen"]), {})
                alike.setdefault(model, []).append(each)
    return [_quality(size, models) for (size, _, _), models in found.items()]


def _trainings(sources: list[Path]) -> Iterator[Training]:
    """Trainings from scratch, each once, however many records tell of it."""
    found: dict[str, Training] = {}
    for source in sources:
        if not source.is_dir() and source not in shipped():
            raise UsageError(f"there is no folder {source} of records; choose another --records.")
        for path in sorted(source.rglob("*.json")):
            if _tells_of_training(path):
                training = Training(path, read(path), False)
                found[json.dumps(training.plan, sort_keys=True)] = training
    return (each for each in found.values() if not each.record["origin"])


def _tells_of_training(path: Path) -> bool:
    """Whether a file is a record of a training; tokenizers, configs and estimates are JSON too."""
    try:
        kind = str(json.loads(path.read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return kind == "training"


def _is_of(record: JsonObject, card: specs.ModelCard, size: specs.Size) -> bool:
    design, dimensions = card.architecture.model_dump(), size.model_dump(exclude={"name", "title", "training"})
    expected = {"card": card.name, "architecture": design, "size": size.name, "dimensions": dimensions}
    return all(record[key] == value for key, value in expected.items())


def _quality(size: str, models: dict[str, list[Training]]) -> Quality:
    corpus = next(iter(models.values()))[0].record["corpus"]
    seeds = {model: _usual(trainings) for model, trainings in models.items()}
    return Quality(size, corpus["name"], corpus["tokens_seen"], seeds)


def _usual(trainings: list[Training]) -> Seeds:
    """The seeds of one recipe: the one that was repeated most often, the best of several such."""
    recipes: dict[str, list[float]] = {}
    for each in trainings:
        recipes.setdefault(json.dumps(each.record["recipe"], sort_keys=True), []).append(each.perplexity)
    return max(map(Seeds.of, recipes.values()), key=lambda seeds: (len(seeds.values), -seeds.mean))
