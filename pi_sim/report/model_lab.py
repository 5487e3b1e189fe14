"""The page of the model lab: designs trained by one recipe, causes that were tested, conversions."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pi_sim.diagnosis.entropy import OVERLOAD, head_fraction, is_overloaded
from pi_sim.errors import UsageError
from pi_sim.records import DiagnosisRecord, EstimateRecord, Observation, Origin, TrainingRecord
from pi_sim.records.models import held_out_perplexity
from pi_sim.report import figures, frames
from pi_sim.report.figures import Drawing, LayerSeries, Matrix, Recovery
from pi_sim.report.frames import PUBLISHED, compare_claims, design_rank, key_of, published_change
from pi_sim.report.perplexities import RECORDS
from pi_sim.report.statistics import FAR, SIMILAR, Seeds
from pi_sim.report.tables import Unit, format_change

FOLDER = RECORDS / "lab"
BASELINE = "gelu_ln"
DESIGN_SETTINGS = {"entropy_penalty", "entropy_margin"}  # in a recipe, but part of a design


@dataclass(frozen=True)
class Lab:
    """All records of the lab."""

    trainings: pd.DataFrame
    diagnoses: list[DiagnosisRecord]
    estimates: dict[str, EstimateRecord]

    @cached_property
    def compared(self) -> pd.DataFrame:
        """Trainings from scratch of designs as on their cards, with the setting that most of them share."""
        scratch = self.trainings[self.trainings["from_scratch"] & self.trainings["on_card"]]
        recipes = [record.recipe.model_dump(exclude=DESIGN_SETTINGS) for record in scratch["record"]]
        settings = scratch[["size", "dimensions", "text"]].agg("".join, axis=1) + list(map(key_of, recipes))
        shared = Counter(settings).most_common(1)
        chosen = scratch[settings == shared[0][0]] if shared else scratch
        ranks = chosen["model"].map(partial(design_rank, order=tuple(PUBLISHED["order"])))
        return chosen.loc[ranks.sort_values(kind="stable").index]

    @cached_property
    def groups(self) -> dict[str, pd.DataFrame]:
        """The compared trainings of each design, in the papers' order."""
        return {str(model): group for model, group in self.compared.groupby("model", sort=False)}

    @cached_property
    def seeds(self) -> dict[str, Seeds]:
        return {model: Seeds.of(group["perplexity"]) for model, group in self.groups.items()}

    @cached_property
    def first(self) -> dict[str, TrainingRecord]:
        """The training with the least seed of each compared design."""
        return {model: group.sort_values("seed")["record"].iloc[0] for model, group in self.groups.items()}

    @cached_property
    def changed(self) -> list[pd.DataFrame]:
        """Trainings of compared designs with something changed, those that differ in the seed alone together."""
        candidates = self.trainings[self.trainings["from_scratch"] & self.trainings["model"].isin(self.groups)]
        candidates = candidates[~candidates.index.isin(self.compared.index)]
        keys = [key_of([record.card, _decisions(record)]) for record in candidates["record"]]
        return [group for _, group in candidates.groupby(keys, sort=False)]

    @cached_property
    def changed_seeds(self) -> dict[str, dict[str, Seeds]]:
        """Perplexities by what was changed and by design; a change of one architecture leaves the other designs."""
        result: dict[str, dict[str, Seeds]] = {}
        for group in self.changed:
            record, usual = group["record"].iloc[0], self.first[group["model"].iloc[0]]
            same_training = (record.recipe, record.dimensions) == (usual.recipe, usual.dimensions)
            unchanged = self.seeds if same_training and record.corpus.sha256 == usual.corpus.sha256 else {}
            designs = result.setdefault(", ".join(self.changes(group)), dict(unchanged))
            designs[record.card] = Seeds.of(group["perplexity"])
        return result

    @cached_property
    def conversions(self) -> list[tuple[Path, TrainingRecord, Origin]]:
        """Fine-tunings of converted checkpoints, and of one that was not converted, as a control."""
        pairs = zip(self.trainings["path"], self.trainings["record"], strict=True)
        return [(path, record, record.origin) for path, record in pairs if record.origin]

    def changes(self, trainings: pd.DataFrame) -> list[str]:
        """Return the switches, settings, dimensions and text in which trainings differ from their unchanged design."""
        record = trainings["record"].iloc[0]
        return frames.describe_changes(_decisions(record), _decisions(self.first[record.card]))


def load(folders: list[Path]) -> Lab | None:
    """Load the records in the folders' `lab`; None without trainings, a `UsageError` without those of the baseline."""
    loaded = list(frames.load_folders(folder / FOLDER.name for folder in folders))
    trainings = [(path, record) for path, record in loaded if isinstance(record, TrainingRecord)]
    if not trainings:
        return None
    frame = frames.training_frame(trainings)
    frame["last"] = pd.Series([record.observations[-1] for _, record in trainings], dtype=object)
    frame = frame.join(_entropy_frame(frame.loc[~frame["diverged"].astype(bool), "last"]))
    diagnoses = [record for _, record in loaded if isinstance(record, DiagnosisRecord)]
    estimates = {record.model: record for _, record in loaded if isinstance(record, EstimateRecord)}
    lab = Lab(frame, diagnoses, estimates)
    if BASELINE not in lab.groups or lab.groups[BASELINE]["diverged"].all():
        raise UsageError(f"{trainings[0][0].parent} has no training of {BASELINE} to compare with; add its record.")
    return lab


def _decisions(record: TrainingRecord) -> dict[str, Any]:
    """Return all that decides a training but its seed."""
    dump = record.model_dump(mode="json", include={"architecture", "recipe", "dimensions"})
    settings = {key: value for values in dump.values() if values for key, value in values.items()}
    return {**settings, "corpus": record.corpus.name, "text": record.corpus.sha256[:8]}


def _entropy_frame(observations: "pd.Series[Any]") -> pd.DataFrame:
    """Return the mean entropy, and the share of overloaded heads, of layer 0 and of later layers."""
    columns = {}
    for name, part in {"first": slice(1), "rest": slice(1, None)}.items():
        layers = observations.map(lambda last, part=part: last.entropy_share[part])
        columns[name] = layers.map(lambda shares: _mean(sum(shares, ())))
        columns[f"{name}_overload"] = layers.map(lambda shares: head_fraction(shares, is_overloaded))
    return pd.DataFrame(columns)


def _mean(shares: tuple[float | None, ...]) -> float:
    """Return the mean of those that are numbers."""
    return float(pd.Series(shares, dtype=float).mean())


def context(lab: Lab) -> dict[str, Any]:
    trained = lab.compared[~lab.compared["diverged"].astype(bool)]
    by_model = trained.groupby("model", sort=False)
    pair = [trained.loc[trained["model"] == model, "first_overload"] for model in ("gelu_nonorm", "relu_nonorm")]
    overload = [sorted(parts) for parts in pair] if all(map(len, pair)) else None
    entropy = by_model[["first", "first_overload", "rest", "rest_overload"]].mean().assign(seeds=by_model.size())
    sources = dict.fromkeys(row["source"] for model in lab.groups if (row := PUBLISHED["designs"].get(model)))
    return {
        "setup": frames.setup(lab.compared.sort_values("diverged", kind="stable")),
        "estimates": list(lab.estimates.values()),
        "quality": [_quality_row(lab, model) for model in lab.groups],
        "sources": [PUBLISHED["sources"][name] for name in sources],
        **_claim_tables(lab),
        "similar": SIMILAR,
        "far": FAR,
        "overload_limit": OVERLOAD,
        "entropy": entropy.reset_index(),
        "overload": overload,
        "causes": list(_causes(lab)),
        **_slopes(lab),
        **_alphas(trained.loc[trained["model"].str.startswith("dyt"), "last"]),
        "sparsity": _sparsity_rows(lab),
        "conversions": _conversion_rows(lab),
        "commands": list(_commands(lab)),
        "records": list(lab.trainings["record"]),
    }


def _quality_row(lab: Lab, model: str) -> dict[str, Any]:
    """Build a design's quality beside its paper's, and its cost where it was estimated."""
    seeds, baseline = lab.seeds[model], None if model == BASELINE else lab.seeds[BASELINE]
    name, change = PUBLISHED["designs"].get(model, {"name": "–"})["name"], published_change(model)
    published = "–" if change is None else "diverged" if math.isnan(change) else f"{change:+.1%}"
    row = {"model": model, "paper": name, **seeds.summary(baseline), "published": published if baseline else ""}
    if diverged := sum(map(math.isinf, seeds.values)):
        row["mean"] = f"diverged, {diverged} of {len(seeds.values)}"
    if lab.estimates:
        total = lab.estimates[model].total if model in lab.estimates else None
        row |= {"rounds": total and total.rounds, "bytes": total and total.bytes}
    return row


def _alphas(last: "pd.Series[Any]") -> dict[str, Any]:
    """Return alpha over 1 / std of its input, and the correlation of both over the modules of each model."""
    rows = [(number, row.alpha, row.inverse_std) for number, end in last.items() for row in end.alphas or ()]
    pairs = pd.DataFrame(rows, columns=["training", "alpha", "inverse_std"], dtype=float).dropna()
    models = [model for _, model in pairs.groupby("training")]
    correlations = [model["alpha"].corr(model["inverse_std"], min_periods=2) for model in models]
    ratios = sorted(pairs["alpha"] / pairs["inverse_std"])
    return {"alpha_ratios": ratios, "alpha_correlations": sorted(filter(math.isfinite, correlations))}


def _claim_tables(lab: Lab) -> dict[str, Any]:
    """Return the claims, with the changes that bring one of another size closer, and the claims with each change."""
    claims = {row["claim"]: row for row in compare_claims("model_lab", lab.seeds)}
    changed = [
        {**row, "changed": change, "usual": claims[row["claim"]]["here"]}
        for change, seeds in lab.changed_seeds.items()
        for row in compare_claims("model_lab", seeds)
        if any(seeds[model] is not lab.seeds[model] for model in row["designs"])
    ]
    for name, claim in claims.items():
        published, distance = claim["published_change"], abs(claim["change"] - claim["published_change"])
        closer = [
            f"{row['changed']}: {row['here']}"
            for row in changed
            if row["claim"] == name and row["change"] * published > 0 and abs(row["change"] - published) < distance
        ]
        claim["closer"] = "" if claim["verdict"].startswith("similar") else "; ".join(closer)
    return {"claims": list(claims.values()), "changed_claims": changed}


def _causes(lab: Lab) -> Iterator[dict[str, Any]]:
    for group in lab.changed:
        model, usual = group["model"].iloc[0], lab.groups[group["model"].iloc[0]]
        row = {"model": model, "changed": ", ".join(lab.changes(group)), "usual": lab.seeds[model].mean}
        entropy = {"entropy": group["first"].mean(), "usual_entropy": usual["first"].mean()}
        yield {**row, **Seeds.of(group["perplexity"]).summary(lab.seeds[model]), **entropy}


def _slopes(lab: Lab) -> dict[str, Any]:
    """Return the learned slopes by layer, where they start, and their sizes at the end."""
    rows, starts, ends = [], [], []
    for record in lab.compared["record"]:
        if slopes := record.observations[-1].slopes:
            rows.append({"model": record.card, "seed": record.seed, **{f"layer {n}": s for n, s in enumerate(slopes)}})
            starts += [slope for slope in record.observations[0].slopes or () if slope is not None]
            ends += [abs(slope) for slope in slopes if slope is not None]
    columns = {key: (key, (Unit(0, "", 1, 3),)) for key in (rows[0] if rows else {}) if key.startswith("layer")}
    return {"slopes": rows, "slope_columns": columns, "slope_starts": starts, "slope_ends": sorted(ends)}


def _sparsity_rows(lab: Lab) -> list[dict[str, Any]]:
    """Build one row for each diagnosed model that has zeros."""
    rows = []
    for record in sorted(lab.diagnoses, key=lambda record: record.model.rpartition("/")[2]):
        zeros = {**{role: _mean(shares) for role, shares in record.sparsity}, "saved": record.flops.share}
        if any(share > 0.001 for share in zeros.values()):
            rows.append({"model": record.model.rpartition("/")[2], **zeros})
    return rows


def _conversion_rows(lab: Lab) -> list[dict[str, Any]]:
    """Build a row for each conversion; its control is the unconverted source, trained on for as many tokens."""
    rows = [_conversion_row(record, origin) for _, record, origin in lab.conversions]
    controls = {(row["source"], row["tokens"]): row["end"] for row in rows if row["after"] is None}
    for row in rows:
        control = controls.get((row["source"], row["tokens"]))
        change = "no control" if control is None else format_change(row["end"], control)
        row["against_control"] = "" if row["after"] is None else change
    return rows


def _conversion_row(record: TrainingRecord, origin: Origin) -> dict[str, Any]:
    surgery = ", ".join(f"{switch} {str(value).lower()}" for switch, value in (origin.surgery or {}).items())
    before, end = held_out_perplexity(origin.quality), held_out_perplexity(record.held_out)
    row = {"source": origin.source or origin.model, "surgery": surgery or "none (control)", "before": before}
    row |= {"after": held_out_perplexity(origin.after) if origin.surgery else None, "end": end}
    return {**row, "tokens": record.corpus.tokens_seen, "change": format_change(end, before)}


def recovery(record: TrainingRecord, origin: Origin) -> Recovery:
    """Return a conversion's perplexities on the sample of held-out text that was observed along fine-tuning."""
    row, quality = _conversion_row(record, origin), origin.quality
    before = quality.sample.loss if quality and quality.sample else None
    losses = {row.tokens: row.held_out_loss for row in record.observations if row.held_out_loss is not None}
    with np.errstate(over="ignore"):
        perplexities = {tokens: float(np.exp(loss)) for tokens, loss in losses.items()}
    name, start = f"{row['source']}: {row['surgery']}", math.inf if before is None else math.exp(before)
    return Recovery(name, start, perplexities)


def _commands(lab: Lab) -> Iterator[str]:
    """Yield the commands that make the records: a loop over the seeds, then conversions, diagnoses and estimates."""
    scratch = lab.trainings[lab.trainings["from_scratch"]]
    for _, group in scratch.groupby(scratch["path"].map(lambda path: path.stem.partition("-seed")[0]), sort=False):
        path, record, seed = group[["path", "record", "seed"]].iloc[0]
        yield f"for seed in {' '.join(map(str, group['seed']))}; do"
        for line in frames.training_commands(path, record, FOLDER):
            yield "  " + line.replace(f"--seed {seed} ", "--seed $seed ").replace(f"-seed{seed}", "-seed$seed")
        yield "done"
    # Conversions of conversions come last.
    by_stage = sorted(lab.conversions, key=lambda item: (str(item[2].source or "").endswith("finetuned"), item[0].name))
    for path, record, origin in by_stage:
        yield from [" ".join(origin.argv)] if origin.argv else []
        yield from frames.training_commands(path, record, FOLDER)
    yield from (record.command for record in lab.diagnoses)
    for model, estimate in lab.estimates.items():
        yield f"{estimate.command} > {FOLDER}/estimate-{model}.json"


def drawings(lab: Lab) -> dict[str, Drawing]:
    trained = {m: record for m, record in lab.first.items() if not math.isinf(held_out_perplexity(record.held_out))}
    heads = [(model, record.observations[-1].entropy_share) for model, record in trained.items()]
    along = [_series(record, lambda row: list(map(_mean, row.entropy_share))) for record in trained.values()]
    reference, changes = lab.seeds[BASELINE].mean, {}
    for model, seeds in lab.seeds.items():
        published = None if model == BASELINE else published_change(model)
        changes[model] = [value / reference - 1 for value in seeds.values if math.isfinite(value)], published
    plots: dict[str, Drawing] = {
        "lab-quality": partial(figures.dot_plot, changes),
        "lab-entropy": partial(figures.heat_maps, heads),
        "lab-entropy-along": partial(figures.lines_by_layer, along, "entropy / maximum", top=1.0),
    }
    if maps := changed_maps(lab):
        plots["lab-changed"] = partial(figures.heat_maps, maps)
    if slopes := [record for record in lab.first.values() if record.observations[-1].slopes]:
        series = [_series(record, lambda row: list(row.slopes or ())) for record in slopes]
        plots["lab-slopes"] = partial(figures.lines_by_layer, series, "slope")
    if lab.conversions:
        rows = [recovery(record, origin) for _, record, origin in lab.conversions]
        plots["lab-recovery"] = partial(figures.recoveries, rows)
    return plots


def changed_maps(lab: Lab) -> list[tuple[str, Matrix]]:
    """Return the heads' entropies at the end of every changed training, with what was changed as title."""
    maps = []
    for group in lab.changed:
        model, diverged, last = group[["model", "diverged", "last"]].iloc[0]
        if not diverged:
            changes = (change.partition(" for ")[0] for change in lab.changes(group))
            maps.append(("\n".join([model, *changes]), last.entropy_share))
    return maps


def _series(record: TrainingRecord, layers: Callable[[Observation], list[Any]]) -> LayerSeries:
    """Return a quantity of each layer along a training."""
    tokens, values = [row.tokens for row in record.observations], map(layers, record.observations)
    return record.card, tokens, [list(layer) for layer in zip(*values, strict=True)]
