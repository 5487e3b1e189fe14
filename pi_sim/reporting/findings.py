"""Findings: the records that a report is made from, found, checked and put in order."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pi_sim import records, specs
from pi_sim.errors import UsageError
from pi_sim.records import Record

DESIGNS = ("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm")
"""The four designs in the papers' order; other models follow by name."""

COUNTS = ("rounds", "bytes", "offline_bytes")
PARTS = ("seconds", "compute_seconds", "communication_seconds", "setup_seconds")
NEEDED = {
    "run": (
        *("model", "size", "protocol", "seq_len", "sequences", "network", "rows", "agreement"),
        *(f"{sums}.{key}" for sums in ("total", "without_embedding_and_head") for key in (*COUNTS, "seconds")),
        *(f"measured.{key}" for key in (*COUNTS, *PARTS)),
        *("perplexity.plain", "perplexity.private"),
    ),
    "training": (
        *("card", "size", "seed", "recipe", "parameters", "loss_curve", "held_out.perplexity"),
        *(f"architecture.{key}" for key in ("norm", "final_norm", "activation")),
        *(f"dimensions.{key}" for key in ("layers", "heads", "width", "context", "vocabulary")),
        *(f"corpus.{key}" for key in ("name", "sha256", "tokens_seen")),
    ),
}
"""What the page reads of a record, by its kind; records of other kinds are not for this page."""
PLAN = ("card", "size", "architecture", "dimensions", "recipe", "seed", "corpus")


@dataclass(frozen=True)
class Run:
    """What a private run found, and the file that tells it."""

    path: Path
    record: Record

    @property
    def model(self) -> str:
        return str(self.record["model"])

    @property
    def protocol(self) -> str:
        return str(self.record["protocol"])

    def by_operation(self) -> dict[str, Record]:
        """Rounds and bytes by operation, for those that cost something."""
        sums: dict[str, Record] = {}
        for row in self.record["rows"]:
            known = sums.setdefault(row["op"], {"rounds": 0, "bytes": 0})
            known["rounds"] += row["rounds"]
            known["bytes"] += row["bytes"]
        return {op: sum_ for op, sum_ in sums.items() if sum_["rounds"] or sum_["bytes"]}


@dataclass(frozen=True)
class Training:
    """What a training found; `shipped` if its weights lie in models/weights."""

    path: Path
    record: Record
    shipped: bool

    @property
    def model(self) -> str:
        return str(self.record["card"])

    @property
    def perplexity(self) -> float:
        return float(self.record["held_out"]["perplexity"])

    def same(self, other: "Training", *but: str) -> bool:
        """Whether two trainings differ in nothing but what is named."""
        return all(self.record[key] == other.record[key] for key in PLAN if key not in but)


@dataclass(frozen=True)
class Findings:
    """All records of models of one size."""

    size: str
    runs: list[Run]
    trainings: list[Training]

    @property
    def models(self) -> list[str]:
        """Every model that was run or trained, the four designs first."""
        return sorted({run.model for run in self.runs} | {each.model for each in self.trainings}, key=rank)

    def runs_of(self, model: str) -> list[Run]:
        """A model's runs, by protocol."""
        return [run for run in self.runs if run.model == model]

    def reference(self, model: str) -> Training | None:
        """The training that stands for a model: the shipped one, else the first seed of the card's own design."""
        known = [training for training in self.trainings if training.model == model]
        design = _design(model)

        def preference(training: Training) -> tuple[bool, bool, int, str]:
            record = training.record
            return not training.shipped, record["architecture"] != design, record["seed"], training.path.name

        return min(known, key=preference, default=None)

    def architecture(self, model: str) -> dict[str, str]:
        """Norms and activation as the reference training had them, else as the model card says."""
        reference = self.reference(model)
        return dict(reference.record["architecture"]) if reference else _design(model)

    def seeds(self, model: str) -> list[Training]:
        """The model's reference training and those that differ from it in the seed alone, by seed."""
        reference = self.reference(model)
        alike = [each for each in self.trainings if reference and each.same(reference, "seed")]
        return sorted(alike, key=lambda training: int(training.record["seed"]))


def gather(sources: list[Path]) -> list[Findings]:
    """The findings of the shipped weights and of the folders, by size; later files override earlier ones."""
    runs: dict[tuple[str, ...], Run] = {}
    trainings: dict[str, Training] = {}
    shipped = sorted((specs.facts() / "models" / "weights").glob("*/record.json"))
    for path in [*shipped, *(path for source in sources for path in sorted(source.glob("*.json")))]:
        record = _read(path)
        if record["kind"] == "run":
            runs[record["model"], record["size"], record["protocol"]] = Run(path, record)
        elif record["kind"] == "training":
            plan = json.dumps([record[name] for name in PLAN], sort_keys=True)
            known = plan in trainings and trainings[plan].shipped
            trainings[plan] = Training(path, record, known or path in shipped)
    if not runs:
        raise UsageError(_no_runs(sources))
    return _by_size([runs[key] for key in sorted(runs)], [trainings[plan] for plan in sorted(trainings)])


def rank(model: str) -> tuple[int, str]:
    """A model's place in the papers' order; those that the papers do not have follow by name."""
    return DESIGNS.index(model) if model in DESIGNS else len(DESIGNS), model


def _design(model: str) -> dict[str, str]:
    """The architecture on the model card; empty for a model without a card."""
    return specs.model_card(model).architecture.model_dump() if model in specs.names("models") else {}


def _read(path: Path) -> Record:
    """A record that is complete for its kind."""
    record = records.load(path)
    for name in NEEDED.get(record["kind"], ()):
        if not _holds(record, name.split(".")):
            raise UsageError(f"{path} has no {name}; make this record anew or remove it.")
    return record


def _holds(value: Any, keys: list[str]) -> bool:
    """Whether a record has a value under nested keys."""
    return not keys or (isinstance(value, dict) and keys[0] in value and _holds(value[keys[0]], keys[1:]))


def _no_runs(sources: list[Path]) -> str:
    places = " or ".join(map(str, sources))
    path = sources[0] / "run-relu_nonorm-tiny-crypten.json"
    return f"no record of a run in {places}; pi-sim run two-party --model relu_nonorm --json {path} makes one."


def _by_size(runs: list[Run], trainings: list[Training]) -> list[Findings]:
    """The findings of each size that was run, in an order that does not depend on how they were found."""
    return [
        Findings(
            size,
            sorted((run for run in runs if run.record["size"] == size), key=lambda run: rank(run.model)),
            sorted((each for each in trainings if each.record["size"] == size), key=lambda each: rank(each.model)),
        )
        for size in sorted({run.record["size"] for run in runs})
    ]
