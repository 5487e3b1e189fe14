"""The page on GPT-2 with and without LayerNorm: its tables and figures from frames of runs and trainings."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from pi_sim import records, specs
from pi_sim.cost.estimate import CONVENTIONS
from pi_sim.errors import UsageError
from pi_sim.records import RunRecord, TrainingRecord
from pi_sim.report import figures, frames
from pi_sim.report.figures import Drawing
from pi_sim.report.frames import PUBLISHED, compare_claims, describe_changes, design_rank, same_but
from pi_sim.report.model_lab import Lab
from pi_sim.report.statistics import Curve, Seeds
from pi_sim.report.styles import Look
from pi_sim.report.tables import BYTES, COUNT, Unit, choose_unit, format_change

BASELINE = "gelu_ln"
README_PANELS = {
    "stock CrypTen (GELU in its tanh form)": {"gelu": "crypten_tanh", "relu": "crypten"},
    "lean (our kernels)": {"gelu": "lean", "relu": "lean"},
}
"""The panels of the README's figure, with the protocol of each activation."""


@dataclass(frozen=True)
class SizeData:
    """Runs and trainings of models of one size."""

    name: str
    runs: pd.DataFrame
    trainings: pd.DataFrame

    @cached_property
    def models(self) -> list[str]:
        """Every model that was run or trained, the four designs first."""
        return sorted({*self.runs["model"], *self.trainings["model"]}, key=design_rank)

    @cached_property
    def references(self) -> pd.DataFrame:
        """The training that stands for each model, in the order of models."""
        references = frames.reference_trainings(self.trainings)
        return references.loc[[model for model in self.models if model in references.index]]

    @cached_property
    def seeds(self) -> dict[str, Seeds]:
        return dict(self.references["seeds"])

    @cached_property
    def prices(self) -> pd.DataFrame:
        """One run for every model, protocol and length: its prices are the same on every network."""
        return self.runs.drop_duplicates(["model", "protocol", "seq_len"])

    @cached_property
    def length(self) -> int:
        """The length that the models are trained for, if it was run, else the longest."""
        context = specs.load_size(self.name).context if self.name in specs.list_names("models/sizes") else None
        return context if context and context in set(self.runs["seq_len"]) else int(self.runs["seq_len"].max())

    def design(self, model: str) -> dict[str, Any]:
        """Return the architecture of the reference training, else of the model card."""
        if model in self.references.index:
            return dict(json.loads(self.references["design"][model]) or {})
        return frames.card_design(model) or {}


def load(folders: list[Path]) -> list[SizeData]:
    """Load shipped weights' records and those of the folders, by size; later files override earlier ones."""
    shipped = sorted((specs.data_root() / "models" / "weights").glob("*/record.json"))
    loaded = [*((path, records.load(path)) for path in shipped), *frames.load_folders(folders)]
    runs = frames.run_frame(record for _, record in loaded if isinstance(record, RunRecord))
    if runs.empty:
        command = f"pi-sim run two-party --model relu_nonorm --json {folders[0]}/run-relu_nonorm-tiny-crypten.json"
        raise UsageError(f"no record of a run in {' or '.join(map(str, folders))}; {command} makes one.")
    key = ["model", "size", "protocol", "seq_len", "network"]
    runs = runs.drop_duplicates(key, keep="last").sort_values(key)
    trainings = frames.training_frame((path, record) for path, record in loaded if isinstance(record, TrainingRecord))
    # A training that ships counts as shipped wherever else it is recorded.
    is_shipped = trainings.groupby("plan")["shipped"].transform("any")
    trainings = trainings.assign(shipped=is_shipped).drop_duplicates("plan", keep="last").sort_values("plan")

    def select(frame: pd.DataFrame, size: str) -> pd.DataFrame:
        ordered = frame.sort_values("model", key=lambda models: models.map(design_rank), kind="stable")
        return ordered[ordered["size"] == size].reset_index(drop=True)

    return [SizeData(size, select(runs, size), select(trainings, size)) for size in sorted(set(runs["size"]))]


def context(sizes: list[SizeData]) -> dict[str, Any]:
    return {"sizes": [_size_context(size) for size in sizes], "conventions": CONVENTIONS, **_provenance(sizes)}


def _size_context(size: SizeData) -> dict[str, Any]:
    runs, prices = _labelled(size.runs, "seq_len", "network"), _labelled(size.prices, "seq_len")
    unit = choose_unit(BYTES, list(size.runs["total_bytes"]))
    columns = ["changed", "model", "usual", "seeds", "mean", "range", "change"]
    recipes = pd.DataFrame(_other_recipes(size), columns=columns)
    quality = pd.DataFrame([_quality_row(size, model) for model in size.models])
    return {
        "name": size.name,
        "runs": runs,
        "prices": prices,
        "setup": frames.setup(size.references) if len(size.references) else None,
        "overview": quality.merge(runs, how="left", on="model", suffixes=("", "_run")),
        "better_recipes": recipes[recipes["mean"] < recipes["usual"]].to_dict("records"),
        "truncations_failed": bool(((runs["agreement_corrupted_positions"] > 0) & ~runs["wrong"]).any()),
        "taylor": _taylor_failures(size),
        "unit": unit,
        **_by_operation(size, prices, "bytes", "sent", replace(unit, name="")),
        **_by_operation(size, prices, "rounds", "rounds", COUNT[0]),
        "order": _order(size),
        "recipes": recipes.sort_values("changed", kind="stable"),
        "best": _best_recipes(recipes),
        "final_norm": [row for model in size.models for row in _final_norm(size, model)],
        "mean_length": size.length,
    }


def _by_operation(size: SizeData, prices: pd.DataFrame, key: str, name: str, unit: Unit) -> dict[str, Any]:
    """Return one row for every run with a column for every operation that is not free, and those columns."""
    operations = frames.operation_frame(size.prices, key)
    columns = {**{op: (op, (unit,)) for op in operations}, f"total_{key}": ("total", (unit,))}
    return {name: prices.join(operations), f"{name}_columns": columns}


def _labelled(runs: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Add the columns that tell runs apart beside model and protocol, as far as they vary."""
    return runs.assign(**{f"varying_{key}": runs[key] for key in keys if runs[key].nunique() > 1})


def _quality_row(size: SizeData, model: str) -> dict[str, Any]:
    design, corpora = size.design(model), size.references["corpus"]
    norms = "all" if design.get("norm") != "none" else "none" if design["final_norm"] == "none" else "final only"
    row = {"model": model, "norms": norms if design else None, "mean": None, "seeds": None}
    is_comparable = model != BASELINE and model in corpora and corpora[model] == corpora.get(BASELINE)
    summary = size.seeds[model].summary(size.seeds.get(BASELINE)) if model in size.seeds else {}
    return {**row, **summary, "change": summary["change"] if is_comparable else None}


def _taylor_failures(size: SizeData) -> list[dict[str, Any]]:
    """Return the models that protocols with CrypTen's Taylor series of erf compute wrongly, by protocol."""
    has_gelu = size.runs["record"].map(lambda run: any(row.op == "gelu" and row.bytes for row in run.rows))
    wrong = size.runs[
        size.runs["wrong"].astype(bool) & has_gelu & size.runs["protocol"].isin(specs.list_names("protocols"))
    ]
    return [
        {"protocol": name, "models": models.unique()}
        for name, models in wrong.groupby("protocol")["model"]
        if specs.load_executable_protocol(str(name)).kernels["gelu"] == "erf-taylor"
    ]


def _order(size: SizeData) -> dict[str, Any] | None:
    """Return the published numbers beside ours, and the claims; None unless two designs were trained."""
    seeds = {model: size.seeds[model] for model in frames.DESIGNS if model in size.seeds}
    if len(seeds) < 2:
        return None
    numbers = []
    for model, values in seeds.items():
        paper, baseline = PUBLISHED["designs"][model], None if model == BASELINE else seeds.get(BASELINE)
        row = {"design": paper["name"], "model": model, "published": paper["perplexity"]}
        numbers.append({**row, "published_change": paper["change"] or None, **values.summary(baseline)})
    return {"numbers": numbers, "claims": compare_claims("norm_free", seeds)}


def _other_recipes(size: SizeData) -> Iterator[dict[str, Any]]:
    """Yield every other recipe of every model, over its seeds, beside the usual one."""
    for _, reference in size.references.iterrows():
        same = same_but(size.trainings, reference, ["design", "dimensions", "text"])
        for recipe, group in same[same["recipe"] != reference["recipe"]].groupby("recipe", sort=False):
            changes = describe_changes(json.loads(str(recipe)), json.loads(reference["recipe"]))
            row = {"changed": ", ".join(changes), "model": reference["model"], "usual": reference["seeds"].mean}
            yield {**row, **Seeds.of(group["perplexity"]).summary(reference["seeds"])}


def _best_recipes(recipes: pd.DataFrame) -> pd.DataFrame:
    """Return the best recipe of every model for which several were tried, the best model first."""
    usual = recipes.assign(changed="the usual", mean=recipes["usual"])
    tried = pd.concat([usual, recipes.sort_values("changed", kind="stable")]).sort_values("mean", kind="stable")
    best, first = tried.drop_duplicates("model"), tried["mean"].min()
    return best.assign(change=["" if mean == first else format_change(mean, first) for mean in best["mean"]])


def _final_norm(size: SizeData, model: str) -> list[dict[str, Any]]:
    """Return a row without and a row with the final norm, for a model that was trained both ways."""
    design = size.design(model)
    if model not in size.references.index or design["norm"] != "none":
        return []
    same = same_but(size.trainings, size.references.loc[model], ["dimensions", "recipe", "corpus"])
    designs = [frames.key_of({**design, "final_norm": choice}) for choice in ("none", "layernorm")]
    if not set(designs) <= set(same["design"]):
        return []
    bare, full = (Seeds.of(same.loc[same["design"] == key, "perplexity"]) for key in designs)
    rows = {"none": bare.summary(), "kept": full.summary(bare)}
    return [{"model": model, "final_norm": name, **row} for name, row in rows.items()]


def _provenance(sizes: list[SizeData]) -> dict[str, Any]:
    """Return the commands that make every record, and which records were made in which environment."""
    commands: list[str] = []
    names: list[tuple[str, str]] = []
    for size in sizes:
        for path, record, shipped in size.trainings[["path", "record", "shipped"]].itertuples(index=False, name=None):
            # Shipped weights lie beside their record.
            commands += frames.training_commands(path, record)[: 1 if shipped else None]
        commands += (run.command for run in size.runs["record"] if run.argv)
        names += [(run.environment, f"run {run.model} {run.protocol}") for run in size.runs["record"]]
        trainings = size.trainings["record"]
        names += [(record.environment, f"training {record.card} seed {record.seed}") for record in trainings]
    environments = pd.DataFrame(names).drop_duplicates().groupby(0)[1].agg(", ".join)
    return {"commands": commands, "environments": environments.to_dict()}


def drawings(size: SizeData) -> dict[str, Drawing]:
    looks = {model: _look(size.design(model)) for model in size.models}
    plots: dict[str, Drawing] = {f"operations-{size.name}": partial(_draw_operations, size)}
    if runs := tradeoff_runs(size):
        protocols = sorted(set(size.runs["protocol"]))
        plots[f"tradeoff-{size.name}"] = partial(figures.tradeoff, runs, size.seeds, looks, protocols)
    if curves := _curves(size):
        plots[f"loss-{size.name}"] = partial(figures.loss_curves, curves, looks)
    return plots


def readme_drawings(sizes: list[SizeData], lab: Lab) -> dict[str, Drawing]:
    """Return the README's figure: the lab's perplexities against seconds; nothing if a design lacks either."""
    if not all(model in lab.seeds and lab.seeds[model].is_finite for model in frames.DESIGNS):
        return {}
    runs = [run for size in sizes if size.name == lab.first[BASELINE].size for run in tradeoff_runs(size)]
    seconds = {(run.model, run.protocol): run.total.seconds["wan"] for run in runs}
    quality = {model: (_look(frames.card_design(model) or {}), lab.seeds[model]) for model in frames.DESIGNS}
    costs = {
        title: {model: seconds.get((model, protocols[look.activation])) for model, (look, _) in quality.items()}
        for title, protocols in README_PANELS.items()
    }
    is_complete = all(None not in by_model.values() for by_model in costs.values())
    return {"readme-quality-cost": partial(figures.quality_against_cost, costs, quality)} if is_complete else {}


def _look(design: dict[str, Any]) -> Look:
    return Look(design.get("activation", ""), design.get("norm") != "none")


def _draw_operations(size: SizeData) -> Any:
    labels = size.prices["model"] + " · " + size.prices["protocol"]
    if size.prices["seq_len"].nunique() > 1:
        labels += " · " + size.prices["seq_len"].astype(str) + " tokens"
    operations = (frames.operation_frame(size.prices, key) for key in ("bytes", "rounds"))
    sent, rounds = (frame.fillna(0).astype(int).set_axis(list(labels), axis=0) for frame in operations)
    unit = choose_unit(BYTES, list(size.prices["total_bytes"]))
    return figures.stacked_bars(sent, rounds, unit.name, unit.divisor)


def tradeoff_runs(size: SizeData) -> list[RunRecord]:
    """Return the runs of models with a finite perplexity, at one length."""
    finite = [model for model, seeds in size.seeds.items() if seeds.is_finite]
    return [run for run in size.prices["record"] if run.seq_len == size.length and run.model in finite]


def _curves(size: SizeData) -> dict[str, Curve]:
    """Return the finite losses by step of every model's reference training."""
    curves = {
        model: {step: loss for step, loss in record.loss_curve if loss is not None}
        for model, record in size.references["record"].items()
    }
    return {str(model): curve for model, curve in curves.items() if curve}
