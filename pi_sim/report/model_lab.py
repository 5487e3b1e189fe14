"""The page of the model lab: designs trained by one recipe, causes that were tested, conversions."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from pi_sim.diagnosis.entropy import OVERLOAD, overloaded, part
from pi_sim.errors import UsageError
from pi_sim.records import DiagnosisRecord, EstimateRecord, Observation, Origin, TrainingRecord
from pi_sim.records.models import held_out_perplexity
from pi_sim.report import figures, frames
from pi_sim.report.figures import Drawing, LayerSeries, Matrix, Recovery
from pi_sim.report.frames import PUBLISHED, RECORDS, design_rank, key_of, published_change, seeds_of
from pi_sim.report.statistics import Seeds, claim_verdict, overload_verdict
from pi_sim.report.tables import Unit, format_change

FOLDER = RECORDS / "lab"
CLAIMS = PUBLISHED["claims"]["model_lab"]
BASELINE = "gelu_ln"
ORDER = (
    *("gelu_ln", "relu_ln", "identity_ln", "gelu_nonorm", "relu_nonorm", "leaky_nonorm", "lrelu_nonorm"),
    *("softmax_only", "aero_scaled", "aero_fused", "aero_entropy", "dyt_gelu", "dyt_relu", "derf_gelu"),
)
"""The designs in the papers' order; others follow by name."""
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
        settings = scratch["record"].map(_setting)
        shared = Counter(settings).most_common(1)
        chosen = scratch[settings == shared[0][0]] if shared else scratch
        ranks = chosen["model"].map(partial(design_rank, order=ORDER))
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
        others = self.trainings[self.trainings["from_scratch"] & self.trainings["model"].isin(self.groups)]
        others = others[~others.index.isin(self.compared.index)]
        keys = [key_of([record.card, _decisions(record)]) for record in others["record"]]
        return [group for _, group in others.groupby(keys, sort=False)]

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
    """Load the records in the folders' `lab`; None where there are no trainings.

    A `UsageError` asks for the design that all others are compared with.
    """
    loaded = list(frames.load_folders(folder / FOLDER.name for folder in folders))
    trainings = [(path, record) for path, record in loaded if isinstance(record, TrainingRecord)]
    if not trainings:
        return None
    frame = frames.training_frame(trainings).join(pd.DataFrame([_entropy(record) for _, record in trainings]))
    diagnoses = [record for _, record in loaded if isinstance(record, DiagnosisRecord)]
    estimates = {record.model: record for _, record in loaded if isinstance(record, EstimateRecord)}
    lab = Lab(frame, diagnoses, estimates)
    if BASELINE not in lab.groups or lab.groups[BASELINE]["diverged"].all():
        raise UsageError(f"{trainings[0][0].parent} has no training of {BASELINE} to compare with; add its record.")
    return lab


def _setting(record: TrainingRecord) -> str:
    """Return what decides a training beside its design and its seed, as a key."""
    recipe = record.recipe.model_dump(mode="json", exclude=set(DESIGN_SETTINGS))
    return key_of([record.size, record.dimensions.model_dump(), recipe, record.corpus.sha256])


def _decisions(record: TrainingRecord) -> dict[str, Any]:
    """Return all that decides a training but its seed."""
    dump = record.model_dump(mode="json", include={"architecture", "recipe", "dimensions"})
    settings = {key: value for values in dump.values() if values for key, value in values.items()}
    return {**settings, "corpus": record.corpus.name, "text": record.corpus.sha256[:8]}


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _entropy(record: TrainingRecord) -> dict[str, float]:
    """Return the columns of ENTROPY; NaN for a training that diverged."""
    if not record.observations or math.isinf(held_out_perplexity(record.held_out)):
        return dict.fromkeys(ENTROPY, math.nan)
    shares = record.observations[-1].entropy_share
    columns = [
        value for layers in (shares[:1], shares[1:]) for value in (_mean(sum(layers, ())), part(layers, overloaded))
    ]
    return dict(zip(ENTROPY, columns, strict=True))


def _mean(shares: tuple[float | None, ...]) -> float:
    """Return the mean of those that are numbers."""
    numbers = [share for share in shares if share is not None]
    return fmean(numbers) if numbers else math.nan


def context(lab: Lab) -> dict[str, Any]:
    """Return the values that the template shows."""
    trained = lab.compared[~lab.compared["diverged"].astype(bool)].groupby("model", sort=False)
    overload = [list(group["first_overload"].dropna()) for group in _norm_free_pair(lab)]
    slopes = [record for record in lab.compared["record"] if record.observations[-1].slopes]
    records = list(lab.trainings["record"])
    sources = dict.fromkeys(row["source"] for model in lab.groups if (row := PUBLISHED["designs"].get(model)))
    return {
        "setup": frames.setup(lab.compared.sort_values("diverged", kind="stable")),
        "protocols": sorted({estimate.protocol for estimate in lab.estimates.values()}),
        "quality": [_quality_row(lab, model) for model in lab.groups],
        "sources": [PUBLISHED["sources"][name] for name in sources],
        "claims": [_claim_row(lab.seeds, *pair) for pair in CLAIMS if set(pair) <= lab.groups.keys()],
        "overload_limit": OVERLOAD,
        "entropy": trained[list(ENTROPY)].mean().assign(seeds=trained.size()).reset_index(),
        "overload": [_span(parts) for parts in overload] if overload and all(overload) else None,
        "overload_verdict": overload_verdict(*overload) if overload and all(overload) else None,
        "causes": [_cause_row(lab, group) for group in lab.changed],
        "changed_claims": list(_changed_claims(lab)),
        "slopes": [{"model": r.card, "seed": r.seed, **_by_layer(r.observations[-1].slopes or ())} for r in slopes],
        "slope_columns": {key: (key, (Unit(0, "", 1, 3),)) for key in _by_layer(slopes[0].observations[-1].slopes)}
        if slopes
        else {},
        "slope_start": next(
            (slope for record in slopes for slope in record.observations[0].slopes or () if slope is not None), 0
        ),
        "slope_ends": sorted(
            abs(slope) for record in slopes for slope in record.observations[-1].slopes or () if slope is not None
        ),
        "alpha_ratios": sorted(_alpha_ratios(lab)),
        "sparsity": _sparsity_rows(lab),
        "conversions": [_conversion_row(record, origin) for _, record, origin in lab.conversions],
        "commands": list(_commands(lab)),
        "trainings": len(records),
        "hours": sum(record.seconds for record in records) / 3600,
        "threads": " or ".join(map(str, sorted({record.threads for record in records}))),
        "environments": sorted(set(map(frames.environment, records))),
    }


def _norm_free_pair(lab: Lab) -> list[pd.DataFrame]:
    return [
        lab.groups[model]
        for model in ("gelu_nonorm", "relu_nonorm")
        if {"gelu_nonorm", "relu_nonorm"} <= lab.groups.keys()
    ]


def _by_layer(slopes: Any) -> dict[str, Any]:
    return {f"layer {layer}": slope for layer, slope in enumerate(slopes)}


def _span(parts: list[float]) -> str:
    return " to ".join(f"{end:.0%}" for end in sorted({min(parts), max(parts)}))


def _quality_row(lab: Lab, model: str) -> dict[str, Any]:
    """Build a design's quality beside its paper's, and its cost where it was estimated."""
    seeds, baseline = lab.seeds[model], None if model == BASELINE else lab.seeds[BASELINE]
    name, change = PUBLISHED["designs"].get(model, {"name": "–"})["name"], published_change(model)
    published = "–" if change is None else "diverged" if math.isnan(change) else f"{change:+.1%}"
    row = {
        "model": model,
        "paper": name,
        **seeds.summary(baseline),
        "published": "" if model == BASELINE else published,
    }
    if diverged := sum(map(math.isinf, seeds.values)):
        row["mean"] = f"diverged, {diverged} of {len(seeds.values)}"
    if lab.estimates:
        total = lab.estimates[model].total if model in lab.estimates else None
        row |= {"rounds": total and total.rounds, "bytes": total and total.bytes}
    return row


def _claim_row(seeds: dict[str, Seeds], better: str, worse: str) -> dict[str, Any]:
    """Build a claim: by how much the worse design's perplexity is larger in the papers and here, and a verdict."""
    published = [1 + (published_change(model) or 0.0) for model in (worse, better)]
    return {
        "claim": f"{better} ahead of {worse}",
        "published": format_change(*published),
        "here": seeds[worse].change(seeds[better]),
        "verdict": claim_verdict(seeds[better], seeds[worse]),
    }


def _cause_row(lab: Lab, trainings: pd.DataFrame) -> dict[str, Any]:
    model = trainings["model"].iloc[0]
    row = {
        "model": model,
        "changed": ", ".join(lab.changes(trainings)),
        **seeds_of(trainings).summary(lab.seeds[model]),
    }
    entropy = {"entropy": trainings["first"].mean(), "usual_entropy": lab.groups[model]["first"].mean()}
    return {**row, "usual": lab.seeds[model].mean, **entropy}


def _changed_claims(lab: Lab) -> Iterator[dict[str, Any]]:
    """Yield the papers' claims about two designs that were both changed alike."""
    by_change: dict[str, dict[str, Seeds]] = {}
    for group in lab.changed:
        by_change.setdefault(", ".join(lab.changes(group)), {})[group["model"].iloc[0]] = seeds_of(group)
    for changed, seeds in by_change.items():
        for pair in CLAIMS:
            if set(pair) <= seeds.keys():
                usual = _claim_row(lab.seeds, *pair)["here"]
                yield {"changed": changed, **_claim_row(seeds, *pair), "usual": usual}


def _alpha_ratios(lab: Lab) -> Iterator[float]:
    """Yield the ratio of each of DyT's alphas to 1 / std of its input."""
    for record in lab.compared["record"]:
        if record.card.startswith("dyt") and not math.isinf(held_out_perplexity(record.held_out)):
            alphas = record.observations[-1].alphas or ()
            yield from (row.alpha / row.inverse_std for row in alphas if row.inverse_std)


def _sparsity_rows(lab: Lab) -> list[dict[str, Any]]:
    """Build one row for each diagnosed model that has zeros."""
    rows = []
    for record in sorted(lab.diagnoses, key=lambda record: record.model.rpartition("/")[2]):
        zeros = {**{role: _mean(shares) for role, shares in record.sparsity}, "saved": record.flops.share}
        if any(share > 0.001 for share in zeros.values()):
            rows.append({"model": record.model.rpartition("/")[2], **zeros})
    return rows


def _conversion_row(record: TrainingRecord, origin: Origin) -> dict[str, Any]:
    surgery = ", ".join(f"{switch} {str(value).lower()}" for switch, value in (origin.surgery or {}).items())
    before = held_out_perplexity(origin.before if origin.surgery else origin.held_out)
    end = held_out_perplexity(record.held_out)
    return {
        "source": origin.source or origin.model,
        "surgery": surgery or "none, to compare",
        "before": before,
        "after": held_out_perplexity(origin.after) if origin.surgery else None,
        "tokens": record.corpus.tokens_seen,
        "end": end,
        "change": format_change(end, before),
    }


def recovery(record: TrainingRecord, origin: Origin) -> Recovery:
    """Return a conversion's perplexities on the sample of held-out text that was observed along fine-tuning."""
    row, quality = _conversion_row(record, origin), origin.before if origin.surgery else origin.held_out
    before = quality.sample.loss if quality and quality.sample else None
    losses = {row.tokens: row.held_out_loss for row in record.observations if row.held_out_loss is not None}
    perplexities = {tokens: _perplexity(loss) for tokens, loss in losses.items()}
    return Recovery(f"{row['source']}: {row['surgery']}", _perplexity(before), perplexities)


def _perplexity(loss: float | None) -> float:
    """Return e^loss, infinite where a float overflows."""
    try:
        return math.inf if loss is None else math.exp(loss)
    except OverflowError:
        return math.inf


def _commands(lab: Lab) -> Iterator[str]:
    """Yield the commands that make the records: a loop over the seeds, then conversions, diagnoses and estimates."""
    scratch = lab.trainings[lab.trainings["from_scratch"]]
    stems = [
        path.stem.removesuffix(f"-seed{seed}") for path, seed in zip(scratch["path"], scratch["seed"], strict=True)
    ]
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
    yield from map(frames.command_line, lab.diagnoses)
    for model, estimate in lab.estimates.items():
        yield f"{frames.command_line(estimate)} > {FOLDER}/estimate-{model}.json"


# ---- figures


def drawings(lab: Lab) -> dict[str, Drawing]:
    """Return every figure that there are records for, by name."""
    trained = {m: record for m, record in lab.first.items() if not math.isinf(held_out_perplexity(record.held_out))}
    heads = [(model, record.observations[-1].entropy_share) for model, record in trained.items()]
    along = [_series(record, lambda row: list(map(_mean, row.entropy_share))) for record in trained.values()]
    drawn: dict[str, Drawing] = {
        "lab-quality": partial(figures.dot_plot, {model: _change_points(lab, model) for model in lab.groups}),
        "lab-entropy": partial(figures.heat_maps, heads),
        "lab-entropy-along": partial(figures.lines_by_layer, along, "entropy / maximum", top=1.0),
    }
    if maps := changed_maps(lab):
        drawn["lab-changed"] = partial(figures.heat_maps, maps)
    if slopes := [record for record in lab.first.values() if record.observations[-1].slopes]:
        series = [_series(record, lambda row: list(row.slopes or ())) for record in slopes]
        drawn["lab-slopes"] = partial(figures.lines_by_layer, series, "slope")
    if lab.conversions:
        rows = [recovery(record, origin) for _, record, origin in lab.conversions]
        drawn["lab-recovery"] = partial(figures.recoveries, rows)
    return drawn


def _change_points(lab: Lab, model: str) -> tuple[list[float], float | None]:
    """Return every seed's change against the baseline's mean, and the published one."""
    reference = lab.seeds[BASELINE].mean
    published = None if model == BASELINE else published_change(model)
    return [value / reference - 1 for value in lab.seeds[model].values if math.isfinite(value)], published


def changed_maps(lab: Lab) -> list[tuple[str, Matrix]]:
    """Return the heads' entropies at the end of every changed training, with what was changed as title."""
    return [
        (
            "\n".join([group["model"].iloc[0], *(change.partition(" for ")[0] for change in lab.changes(group))]),
            group["record"].iloc[0].observations[-1].entropy_share,
        )
        for group in lab.changed
        if not group["diverged"].iloc[0]
    ]


def _series(record: TrainingRecord, layers: Callable[[Observation], list[Any]]) -> LayerSeries:
    """Return a quantity of each layer along a training."""
    tokens, values = [row.tokens for row in record.observations], map(layers, record.observations)
    return LayerSeries(record.card, tokens, [list(layer) for layer in zip(*values, strict=True)])
