"""Findings: the records that a report is made from, found and put in order."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.reporting import usual
from pi_sim.reporting.recorded import Run, Training, read
from pi_sim.reporting.seeds import Seeds

DESIGNS = ("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm")
"""The four designs in the papers' order; other models follow by name."""


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

    @property
    def priced(self) -> list[Run]:
        """One run for every model, protocol and length: its prices are the same on every network."""
        return list({(run.model, run.protocol, run.length): run for run in reversed(self.runs)}.values())[::-1]

    @property
    def length(self) -> int:
        """The length that the models are trained for, if it was run, else the longest."""
        lengths = {run.length for run in self.runs}
        trained = usual.context(self.size)
        return trained if trained in lengths else max(lengths)

    def runs_of(self, model: str) -> list[Run]:
        """A model's runs, by protocol."""
        return [run for run in self.runs if run.model == model]

    def reference(self, model: str) -> Training | None:
        """The training that stands for a model: the shipped one, else the first seed of the usual design and recipe."""
        known = [training for training in self.trainings if training.model == model]
        design, recipe = usual.design(model), usual.recipe(model, self.size)

        def preference(training: Training) -> tuple[bool, bool, bool, int, str]:
            record = training.record
            changed = record["architecture"] != design, record["recipe"] != recipe
            return not training.shipped, *changed, record["seed"], training.path.name

        return min(known, key=preference, default=None)

    def architecture(self, model: str) -> dict[str, str]:
        """Norms and activation as the reference training had them, else as the model card says."""
        reference = self.reference(model)
        return dict(reference.record["architecture"]) if reference else usual.design(model)

    def perplexity(self, model: str) -> Seeds | None:
        """Of the model's reference training and those that differ from it in the seed alone."""
        reference = self.reference(model)
        if reference is None:
            return None
        return Seeds.of(each.perplexity for each in self.trainings if each.same(reference, "seed"))


def gather(sources: list[Path]) -> list[Findings]:
    """The findings of the shipped weights and of the folders, by size; later files override earlier ones."""
    runs: dict[tuple[str, str, str, int, str], Run] = {}
    trainings: dict[str, Training] = {}
    shipped = sorted((specs.facts() / "models" / "weights").glob("*/record.json"))
    for path in [*shipped, *(path for source in sources for path in sorted(source.glob("*.json")))]:
        record = read(path)
        if record["kind"] == "run":
            run = Run(path, record)
            runs[run.model, record["size"], run.protocol, run.length, record["network"]] = run
        elif record["kind"] == "training":
            training = Training(path, record, path in shipped)
            plan = json.dumps(training.plan, sort_keys=True)
            known = plan in trainings and trainings[plan].shipped
            trainings[plan] = replace(training, shipped=known or training.shipped)
    if not runs:
        raise UsageError(_no_runs(sources))
    return _by_size([runs[key] for key in sorted(runs)], [trainings[plan] for plan in sorted(trainings)])


def rank(model: str) -> tuple[int, str]:
    """A model's place in the papers' order; those that the papers do not have follow by name."""
    return DESIGNS.index(model) if model in DESIGNS else len(DESIGNS), model


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
