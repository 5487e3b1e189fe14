"""What the lab found: its records, sorted into comparable trainings, trainings with one thing changed, conversions."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pi_sim.errors import UsageError
from pi_sim.records import JsonObject
from pi_sim.reporting import usual
from pi_sim.reporting.recorded import Training, read
from pi_sim.reporting.seeds import Seeds

FOLDER = "lab"
BASELINE = "gelu_ln"
ORDER = (
    *("gelu_ln", "relu_ln", "identity_ln", "gelu_nonorm", "relu_nonorm", "leaky_nonorm", "lrelu_nonorm"),
    *("softmax_only", "aero_scaled", "aero_fused", "aero_entropy", "dyt_gelu", "dyt_relu", "derf_gelu"),
)
"""The designs in the papers' order; others follow by name."""
OWN = ("entropy_penalty", "entropy_margin")
"""What of a recipe belongs to a design."""


@dataclass(frozen=True)
class Lab:
    """All records of the lab."""

    trainings: list[Training]
    diagnoses: list[JsonObject]
    estimates: dict[str, JsonObject]

    @property
    def compared(self) -> dict[str, list[Training]]:
        """By design, over its seeds: the trainings from scratch that share what most of them share."""
        scratch = [each for each in self.trainings if not each.record["origin"] and _as_on_card(each)]
        shared = Counter(map(_setting, scratch)).most_common(1)
        chosen = [each for each in scratch if _setting(each) == shared[0][0]]
        return {model: [each for each in chosen if each.model == model] for model in _ordered(chosen)}

    @property
    def changed(self) -> list[Training]:
        """Trainings from scratch in which a switch or a setting of a compared design was changed."""
        known = [each for trainings in self.compared.values() for each in trainings]
        return [each for each in self.trainings if not each.record["origin"] and each not in known]

    @property
    def conversions(self) -> list[Training]:
        """Fine-tunings of converted checkpoints, and of one that was not converted, to compare."""
        return [each for each in self.trainings if each.record["origin"]]

    def seeds(self, model: str) -> Seeds:
        """The perplexities of a compared design."""
        return Seeds.of(each.perplexity for each in self.compared[model])

    def first(self, model: str) -> Training:
        """A compared design's training that stands for it: the one with the least seed."""
        return min(self.compared[model], key=lambda each: int(each.record["seed"]))


def gather(sources: list[Path]) -> Lab | None:
    """The records in the folders' `lab`; None where there are no trainings.

    A `UsageError` asks for the design that all others are compared with.
    """
    paths = [path for source in sources for path in sorted((source / FOLDER).glob("*.json"))]
    found = {path: read(path) for path in paths}
    trainings = [Training(path, record, False) for path, record in found.items() if record["kind"] == "training"]
    diagnoses = [record for record in found.values() if record["kind"] == "diagnosis"]
    known = {str(record["model"]): record for record in found.values() if record["kind"] == "estimate"}
    lab = Lab(trainings, diagnoses, known)
    if trainings and all(each.diverged for each in lab.compared.get(BASELINE, [])):
        raise UsageError(f"{trainings[0].path.parent} has no training of {BASELINE} to compare with; add its record.")
    return lab if trainings else None


def _as_on_card(training: Training) -> bool:
    """Whether the design is its card's."""
    return bool(training.record["architecture"] == usual.design(training.model))


def _setting(training: Training) -> str:
    """What decides a training beside its design and its seed, as a key."""
    record = training.record
    recipe = {key: value for key, value in record["recipe"].items() if key not in OWN}
    return json.dumps([record["size"], record["dimensions"], recipe, record["corpus"]["sha256"]], sort_keys=True)


def _ordered(trainings: list[Training]) -> Iterator[str]:
    """Each model once."""
    models = {each.model for each in trainings}
    return iter(sorted(models, key=lambda model: (ORDER.index(model) if model in ORDER else len(ORDER), model)))
