"""The page of the model lab: designs trained by one recipe, causes that were tested, conversions."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import StatisticsError, correlation, fmean
from typing import Any

import numpy as np
import pandas as pd

from pi_sim.diagnosis.entropy import OVERLOAD, head_fraction, is_overloaded
from pi_sim.errors import UsageError
from pi_sim.records import DiagnosisRecord, EstimateRecord, Observation, Origin, TrainingRecord
from pi_sim.records.models import Alpha, held_out_perplexity
from pi_sim.report import figures, frames
from pi_sim.report.figures import Drawing, LayerSeries, Matrix, Recovery
from pi_sim.report.frames import PUBLISHED, RECORDS, design_rank, key_of, published_change, seeds_of
from pi_sim.report.statistics import FAR, SIMILAR, Seeds, claim_verdict
from pi_sim.report.tables import Unit, format_change

FOLDER = RECORDS / "lab"
BASELINE = "gelu_ln"
DESIGN_SETTINGS = ("entropy_penalty", "entropy_margin")
"""Settings of a recipe that belong to a design."""
ENTROPY = ("first", "first_overload", "rest", "rest_overload")
"""Mean entropy, and the share of overloaded heads, of layer 0 and of later layers at the end of a training."""


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
        recipes = [record.recipe.model_dump(exclude=set(DESIGN_SETTINGS)) for record in scratch["record"]]
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
        """The perplexities of each compared design."""
        return {model: seeds_of(group) for model, group in self.groups.items()}

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
            result.setdefault(", ".join(self.changes(group)), dict(unchanged))[record.card] = seeds_of(group)
        return result

    @cached_property
    def conversions(self) -> list[tuple[Path, TrainingRecord, Origin]]:
        """Fine-tunings of converted checkpoints, and of one that was not converted, as a control."""
        pairs = zip(self.trainings["path"], self.trainings["record"], strict=True)
        return [(path, record, record.origin) for path, record in pairs if record.origin]

    def changes(self, trainings: pd.DataFrame) -> list[str]:
        """Return the switches, settings, dimensions and text in which trainings differ from their unchanged design."""
        record = trainings["record"].iloc[0]
        new, usual = _decisions(record), _decisions(self.first[record.card])
        return [f"{key} {_value(new[key])} for {_value(usual[key])}" for key in sorted(new) if new[key] != usual[key]]


def load(folders: list[Path]) -> Lab | None:
    """Load the records in the folders' `lab`; None without trainings, a `UsageError` without those of the baseline."""
    loaded = list(frames.load_folders(folder / FOLDER.name for folder in folders))
    trainings = [(path, record) for path, record in loaded if isinstance(record, TrainingRecord)]
    if not trainings:
        return None
    frame = frames.training_frame(trainings).join(pd.DataFrame([_entropy(record) for _, record in trainings]))
    frame["last"] = pd.Series([record.observations[-1] for _, record in trainings], dtype=object)
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


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _entropy(record: TrainingRecord) -> dict[str, float]:
    """Return the columns of ENTROPY; NaN for a training that diverged."""
    shares = record.observations[-1].entropy_share
    if math.isinf(held_out_perplexity(record.held_out)):
        return dict.fromkeys(ENTROPY, math.nan)
    parts = (shares[:1], shares[1:])
    means, fractions = [_mean(sum(part, ())) for part in parts], [head_fraction(part, is_overloaded) for part in parts]
    return dict(zip(ENTROPY, (means[0], fractions[0], means[1], fractions[1]), strict=True))


def _mean(shares: tuple[float | None, ...]) -> float:
    """Return the mean of those that are numbers."""
    numbers = [share for share in shares if share is not None]
    return fmean(numbers) if numbers else math.nan


def context(lab: Lab) -> dict[str, Any]:
    """Return the values that the template shows."""
    trained = lab.compared[~lab.compared["diverged"].astype(bool)]
    by_model = trained.groupby("model", sort=False)
    pair = [trained.loc[trained["model"] == model, "first_overload"] for model in ("gelu_nonorm", "relu_nonorm")]
    overload = [sorted(parts) for parts in pair] if all(map(len, pair)) else None
    entropy = by_model[list(ENTROPY)].mean().assign(seeds=by_model.size())
    sources = dict.fromkeys(row["source"] for model in lab.groups if (row := PUBLISHED["designs"].get(model)))
    alphas = [last.alphas for last in trained.loc[trained["model"].str.startswith("dyt"), "last"] if last.alphas]
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
        "first_entropy": entropy["first"].to_dict(),
        "overload": overload,
        "causes": list(_causes(lab)),
        **_slopes(lab),
        "alpha_ratios": sorted(row.alpha / row.inverse_std for rows in alphas for row in rows if row.inverse_std),
        "alpha_correlations": sorted(filter(math.isfinite, map(_alpha_correlation, alphas))),
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


def _alpha_correlation(alphas: Iterable[Alpha]) -> float:
    """Return the correlation of alpha and 1 / std of its input over the modules of a model; NaN for a single one."""
    pairs = [(row.alpha, row.inverse_std) for row in alphas if row.alpha is not None and row.inverse_std is not None]
    with suppress(StatisticsError):
        return correlation([alpha for alpha, _ in pairs], [inverse_std for _, inverse_std in pairs])
    return math.nan


def _claims(lab: Lab, seeds: dict[str, Seeds]) -> Iterator[dict[str, Any]]:
    """Yield the papers' claims: by how much the worse design's perplexity is larger there and here, and a verdict."""
    for better, worse in PUBLISHED["claims"]["model_lab"]:
        is_new = seeds is lab.seeds or any(seeds.get(model) is not lab.seeds.get(model) for model in (better, worse))
        if {better, worse} <= seeds.keys() and is_new:
            base, other = (1 + (published_change(model) or 0.0) for model in (better, worse))
            first, second, published = seeds[better], seeds[worse], other / base - 1
            row = {"claim": f"{better} ahead of {worse}", "published": f"{published:+.1%}"}
            changes = {"change": second.mean / first.mean - 1, "published_change": published}
            verdict = claim_verdict(first, second, published)
            yield {**row, **changes, "here": second.change(first), "verdict": verdict}


def _claim_tables(lab: Lab) -> dict[str, Any]:
    """Return the claims, and those about designs that were changed alike.

    "closer" lists the changes that bring a claim of another size closer to the published one.
    """
    claims = [{**row, "closer": ""} for row in _claims(lab, lab.seeds)]
    changed = [{"changed": name, **row} for name, seeds in lab.changed_seeds.items() for row in _claims(lab, seeds)]
    for claim in claims:
        published, distance = claim["published_change"], abs(claim["change"] - claim["published_change"])
        repeated = [row for row in changed if row["claim"] == claim["claim"]]
        for row in repeated:
            row["usual"] = claim["here"]
        if not claim["verdict"].startswith("similar"):
            closer = [row for row in repeated if row["change"] * published > 0]
            closer = [row for row in closer if abs(row["change"] - published) < distance]
            claim["closer"] = "; ".join(f"{row['changed']}: {row['here']}" for row in closer)
    return {"claims": claims, "changed_claims": changed}


def _causes(lab: Lab) -> Iterator[dict[str, Any]]:
    """Yield a row for each change of a design."""
    for group in lab.changed:
        model, changed, seeds = group["model"].iloc[0], ", ".join(lab.changes(group)), seeds_of(group)
        usual = {"usual": lab.seeds[model].mean, "usual_entropy": lab.groups[model]["first"].mean()}
        row = {"model": model, "changed": changed, **seeds.summary(lab.seeds[model]), **usual}
        yield {**row, "entropy": group["first"].mean()}


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
    after = held_out_perplexity(origin.after) if origin.surgery else None
    row = {"source": origin.source or origin.model, "surgery": surgery or "none (control)", "before": before}
    return {
        **row,
        "after": after,
        "tokens": record.corpus.tokens_seen,
        "end": end,
        "change": format_change(end, before),
    }


def recovery(record: TrainingRecord, origin: Origin) -> Recovery:
    """Return a conversion's perplexities on the sample of held-out text that was observed along fine-tuning."""
    row, quality = _conversion_row(record, origin), origin.quality
    before = quality.sample.loss if quality and quality.sample else None
    losses = {row.tokens: row.held_out_loss for row in record.observations if row.held_out_loss is not None}
    with np.errstate(over="ignore"):
        perplexities = {tokens: float(np.exp(loss)) for tokens, loss in losses.items()}
    return Recovery(
        f"{row['source']}: {row['surgery']}", math.inf if before is None else math.exp(before), perplexities
    )


def _commands(lab: Lab) -> Iterator[str]:
    """Yield the commands that make the records: a loop over the seeds, then conversions, diagnoses and estimates."""
    scratch = lab.trainings[lab.trainings["from_scratch"]]
    pairs = zip(scratch["path"], scratch["seed"], strict=True)
    stems = [path.stem.removesuffix(f"-seed{seed}") for path, seed in pairs]
    for _, group in scratch.groupby(stems, sort=False):
        path, record, seed = group[["path", "record", "seed"]].iloc[0]
        yield f"for seed in {' '.join(map(str, group['seed']))}; do"
        for line in frames.training_commands(path, record, FOLDER):
            yield "  " + line.replace(f"--seed {seed} ", "--seed $seed ").replace(f"-seed{seed}", "-seed$seed")
        yield "done"
    # Conversions of conversions come last.
    for path, record, origin in sorted(
        lab.conversions, key=lambda item: (str(item[2].source or "").endswith("finetuned"), item[0].name)
    ):
        yield from [" ".join(origin.argv)] if origin.argv else []
        yield from frames.training_commands(path, record, FOLDER)
    yield from (record.command for record in lab.diagnoses)
    for model, estimate in lab.estimates.items():
        yield f"{estimate.command} > {FOLDER}/estimate-{model}.json"


def drawings(lab: Lab) -> dict[str, Drawing]:
    """Return every figure that there are records for, by name."""
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
    groups = [group for group in lab.changed if not group["diverged"].iloc[0]]
    changes = [[change.partition(" for ")[0] for change in lab.changes(group)] for group in groups]
    titles = ["\n".join([group["model"].iloc[0], *lines]) for group, lines in zip(groups, changes, strict=True)]
    return [(title, group["last"].iloc[0].entropy_share) for title, group in zip(titles, groups, strict=True)]


def _series(record: TrainingRecord, layers: Callable[[Observation], list[Any]]) -> LayerSeries:
    """Return a quantity of each layer along a training."""
    tokens, values = [row.tokens for row in record.observations], map(layers, record.observations)
    return record.card, tokens, [list(layer) for layer in zip(*values, strict=True)]
