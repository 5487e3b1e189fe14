"""The page of the model lab: designs by one recipe, causes that were tested, conversions."""

import math
import sys
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
from pi_sim.records import DiagnosisRecord, EstimateRecord, HeldOut, Observation, TrainingRecord
from pi_sim.report import figures, frames
from pi_sim.report.figures import Change, Drawing, LayerSeries, Matrix, Recovery
from pi_sim.report.frames import LAB, RECORDS, design_rank, key_of, seeds_of
from pi_sim.report.norm_free import setup
from pi_sim.report.statistics import Seeds, claim_verdict, overload_verdict
from pi_sim.report.tables import Unit, format_change

BASELINE = "gelu_ln"
ORDER = (
    *("gelu_ln", "relu_ln", "identity_ln", "gelu_nonorm", "relu_nonorm", "leaky_nonorm", "lrelu_nonorm"),
    *("softmax_only", "aero_scaled", "aero_fused", "aero_entropy", "dyt_gelu", "dyt_relu", "derf_gelu"),
)
"""The designs in the papers' order; others follow by name."""
DESIGN_SETTINGS = ("entropy_penalty", "entropy_margin")
"""Settings of a recipe that belong to a design."""
GPT2 = "arXiv 2501.03489, table 2: GPT-2, 12 layers, 128 tokens, 2.1e9 tokens of CodeParrot"
AERO = "AERO, arXiv 2410.13060, table 4: the same models and text"
OWT = "arXiv 2512.10938: GPT-2 small on OpenWebText, loss 2.94 with LayerNorm, 2.97 with DyT, 2.94 with Derf"
PUBLISHED = {
    "gelu_ln": ("SM+LN+G", 0.0, GPT2),
    "relu_ln": ("SM+LN+R", 0.0253, GPT2),
    "identity_ln": ("SM+LN", 0.2558, GPT2),
    "gelu_nonorm": ("SM+G", 0.1892, GPT2),
    "relu_nonorm": ("SM+R", 0.0920, GPT2),
    "softmax_only": ("SM", math.nan, GPT2),
    "aero_scaled": ("SM+ScFFN", 3.50 / 2.69 - 1, AERO),
    "aero_fused": ("SM+ScFuFFN", 3.48 / 2.69 - 1, AERO),
    "aero_entropy": ("EReg(SM(t)+ScFuFFN)", 3.21 / 2.69 - 1, AERO),
    "dyt_gelu": ("DyT", math.exp(2.97 - 2.94) - 1, OWT),
    "derf_gelu": ("Derf", 0.0, OWT),
}
"""Each design's name in its paper, its change of the perplexity against SM+LN+G (NaN: diverged), and the source.

Table 4 of AERO prints perplexities; that of SM+LN+G is 2.69."""
CLAIMS = (
    ("gelu_ln", "relu_ln"),
    ("gelu_ln", "identity_ln"),
    ("gelu_ln", "relu_nonorm"),
    ("relu_ln", "relu_nonorm"),
    ("relu_nonorm", "gelu_nonorm"),
    ("aero_entropy", "aero_fused"),
    ("gelu_ln", "dyt_gelu"),
)
"""The papers' claims, the better design first."""
LARGEST_LOSS = math.log(sys.float_info.max)


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
        return chosen.sort_values("model", key=lambda models: models.map(lambda m: design_rank(m, ORDER)), kind="stable")

    @cached_property
    def changed(self) -> pd.DataFrame:
        """Trainings from scratch in which a switch or a setting was changed."""
        return self.trainings[self.trainings["from_scratch"] & ~self.trainings.index.isin(self.compared.index)]

    @cached_property
    def conversions(self) -> pd.DataFrame:
        """Fine-tunings of converted checkpoints, and of one that was not converted, as a control."""
        return self.trainings[~self.trainings["from_scratch"].astype(bool)]

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
        return {model: group.sort_values("seed", kind="stable")["record"].iloc[0] for model, group in self.groups.items()}

    def trained(self) -> Iterator[tuple[str, TrainingRecord]]:
        """Yield the first training of each compared design, unless it diverged."""
        return ((model, record) for model, record in self.first.items() if not _diverged(record))


def load(folders: list[Path]) -> Lab | None:
    """Load the records in the folders' `lab`; None where there are no trainings.

    A `UsageError` asks for the design that all others are compared with.
    """
    loaded = [*frames.load_folders(folder / LAB for folder in folders)]
    trainings = [(path, record) for path, record in loaded if isinstance(record, TrainingRecord)]
    diagnoses = [record for _, record in loaded if isinstance(record, DiagnosisRecord)]
    estimates = {record.model: record for _, record in loaded if isinstance(record, EstimateRecord)}
    if not trainings:
        return None
    lab = Lab(frames.training_frame(trainings), diagnoses, estimates)
    if BASELINE not in lab.groups or lab.groups[BASELINE]["diverged"].all():
        raise UsageError(f"{trainings[0][0].parent} has no training of {BASELINE} to compare with; add its record.")
    return lab


def _setting(record: TrainingRecord) -> str:
    """Return what decides a training beside its design and its seed, as a key."""
    recipe = record.recipe.model_dump(mode="json", exclude=set(DESIGN_SETTINGS))
    return key_of([record.size, record.dimensions.model_dump(), recipe, record.corpus.sha256])


def _diverged(record: TrainingRecord) -> bool:
    return record.held_out is None or record.held_out.perplexity is None


def context(lab: Lab) -> dict[str, Any]:
    """Return the values that the template shows."""
    compared = lab.compared[~lab.compared["diverged"].astype(bool)]
    first = setup(compared, list(compared["record"]))
    overload = [_overload_parts(lab, model) for model in ("gelu_nonorm", "relu_nonorm")]
    pairs = [(better, worse) for better, worse in CLAIMS if {better, worse} <= lab.groups.keys()]
    return {
        "setup": {**(first or {}), **{key: value for key, value in (setup(lab.compared, list(lab.compared["record"])) or {}).items() if key in ("parameters", "trained")}},
        "protocols": sorted({estimate.protocol for estimate in lab.estimates.values()}),
        "quality": [_quality_row(lab, model) for model in lab.groups],
        "sources": list(dict.fromkeys(PUBLISHED[model][2] for model in lab.groups if model in PUBLISHED)),
        "claims": [_claim_row(lab, *pair) for pair in pairs],
        "overload_limit": OVERLOAD,
        "entropy": [row for model, group in lab.groups.items() for row in _entropy_rows(model, group)],
        "overload": [_span(parts) for parts in overload] if all(overload) else None,
        "overload_verdict": overload_verdict(*overload) if all(overload) else None,
        "has_changes": not lab.changed.empty,
        "causes": [_cause_row(lab, group) for group in changed_groups(lab)],
        "changed_claims": list(_changed_claims(lab)),
        "slopes": _slope_rows(lab),
        "slope_columns": _slope_columns(lab),
        "slope_range": _slope_range(lab),
        "alpha_ratios": _alpha_ratios(lab),
        "sparsity": _sparsity_rows(lab),
        "conversions": [_conversion_row(record) for record in lab.conversions["record"]],
        "commands": list(_commands(lab)),
        "trainings": len(lab.trainings),
        "hours": sum(record.seconds for record in lab.trainings["record"]) / 3600,
        "threads": " or ".join(map(str, sorted({record.threads for record in lab.trainings["record"]}))),
        "environments": sorted(set(map(frames.environment, lab.trainings["record"]))),
    }


def _quality_row(lab: Lab, model: str) -> dict[str, Any]:
    seeds, baseline = lab.seeds[model], lab.seeds[BASELINE]
    name, change, _ = PUBLISHED.get(model, ("–", None, ""))
    published = "–" if change is None else "diverged" if math.isnan(change) else f"{change:+.1%}"
    diverged = sum(map(math.isinf, seeds.values))
    estimate = lab.estimates.get(model)
    cost = {"rounds": estimate and estimate.total.rounds, "bytes": estimate and estimate.total.bytes}
    return {
        "model": model,
        "paper": name,
        **seeds.summary(None if model == BASELINE else baseline),
        **({"mean": f"diverged, {diverged} of {len(seeds.values)}"} if diverged else {}),
        "published": "" if model == BASELINE else published,
        **(cost if lab.estimates else {}),
    }


def _claim_row(lab: Lab, better: str, worse: str) -> dict[str, Any]:
    first, second = lab.seeds[better], lab.seeds[worse]
    return {**_claim(better, worse), "here": second.change(first), "verdict": claim_verdict(first, second)}


def _claim(better: str, worse: str) -> dict[str, Any]:
    """Return a claim, and by how much the worse design's perplexity is larger in the papers."""
    published = (1 + PUBLISHED[worse][1]) / (1 + PUBLISHED[better][1]) - 1
    return {"claim": f"{better} ahead of {worse}", "published": f"{published:+.1%}"}


# ---- entropy


def _last(record: TrainingRecord) -> Observation:
    """Return the observation at the training's end."""
    return record.observations[-1]


def _entropy_rows(model: str, trainings: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the first layer beside the later ones at the end of training, over all seeds that did not diverge."""
    shares = [_last(record).entropy_share for record in trainings["record"] if not _diverged(record)]
    if shares:
        row: dict[str, Any] = {"model": model, "seeds": len(shares)}
        for key, parts in (("first", [share[:1] for share in shares]), ("rest", [share[1:] for share in shares])):
            heads = [share for layers in parts for layer in layers for share in layer if share is not None]
            row |= {key: fmean(heads), f"{key}_overload": fmean(part(layers, overloaded) for layers in parts)}
        yield row


def _overload_parts(lab: Lab, model: str) -> list[float]:
    """Return the part of layer 0's heads that are overloaded, by seed."""
    records = lab.groups[model]["record"] if model in lab.groups else []
    return [part(_last(record).entropy_share[:1], overloaded) for record in records if not _diverged(record)]


def _span(parts: list[float]) -> str:
    return " to ".join(dict.fromkeys(f"{end:.0%}" for end in sorted({min(parts), max(parts)})))


def _first_layer_entropy(trainings: pd.DataFrame) -> float | None:
    """Return the mean entropy of layer 0 at the end, as a share of its maximum; None where all trainings diverged."""
    shares = [_last(record).entropy_share[0] for record in trainings["record"] if not _diverged(record)]
    return fmean(fmean(share for share in layer if share is not None) for layer in shares) if shares else None


# ---- causes


def changed_groups(lab: Lab) -> list[pd.DataFrame]:
    """Return the changed trainings of compared designs, those that differ in the seed alone together."""
    changed = lab.changed[lab.changed["model"].isin(lab.groups)]
    keys = [key_of([record.card, _decisions(record)]) for record in changed["record"]]
    return [group for _, group in changed.groupby(keys, sort=False)]


def changes(lab: Lab, trainings: pd.DataFrame) -> list[str]:
    """Return the switches, settings, dimensions and text in which trainings differ from their unchanged design."""
    record = trainings["record"].iloc[0]
    new, usual = _decisions(record), _decisions(lab.first[record.card])
    return [f"{key} {_value(new[key])} for {_value(usual[key])}" for key in sorted(new) if new[key] != usual[key]]


def _decisions(record: TrainingRecord) -> dict[str, Any]:
    """Return all that decides a training but its seed."""
    parts = (record.architecture, record.recipe, record.dimensions)
    settings = {key: value for each_part in parts if each_part for key, value in each_part.model_dump(mode="json").items()}
    return {**settings, "corpus": record.corpus.name, "text": record.corpus.sha256[:8]}


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _cause_row(lab: Lab, trainings: pd.DataFrame) -> dict[str, Any]:
    model = trainings["model"].iloc[0]
    seeds, usual = seeds_of(trainings), lab.seeds[model]
    return {
        "model": model,
        "changed": ", ".join(changes(lab, trainings)),
        **seeds.summary(usual),
        "usual": usual.mean,
        "entropy": _first_layer_entropy(trainings),
        "usual_entropy": _first_layer_entropy(lab.groups[model]),
    }


def _changed_claims(lab: Lab) -> Iterator[dict[str, Any]]:
    """Yield the papers' claims about two designs that were both changed alike."""
    by_change: dict[str, dict[str, Seeds]] = {}
    for group in changed_groups(lab):
        by_change.setdefault(", ".join(changes(lab, group)), {})[group["model"].iloc[0]] = seeds_of(group)
    for changed, seeds in by_change.items():
        for better, worse in CLAIMS:
            if {better, worse} <= seeds.keys():
                usual, here = (values[worse].change(values[better]) for values in (lab.seeds, seeds))
                yield {"changed": changed, **_claim(better, worse), "usual": usual, "here": here}


# ---- slopes, alphas, sparsity, conversions


def _slope_records(lab: Lab) -> list[TrainingRecord]:
    return [record for record in lab.compared["record"] if _last(record).slopes]


def _slope_rows(lab: Lab) -> list[dict[str, Any]]:
    """Return the learned slopes by layer, each seed a row."""
    return [
        {"model": record.card, "seed": record.seed, **{f"layer {n}": s for n, s in enumerate(_last(record).slopes or ())}}
        for record in _slope_records(lab)
    ]


def _slope_columns(lab: Lab) -> dict[str, Any]:
    layers = {key for row in _slope_rows(lab) for key in row if key.startswith("layer")}
    return {layer: (layer, (Unit(0, "", 1, 3),)) for layer in sorted(layers)}


def _slope_range(lab: Lab) -> tuple[float, float, float] | None:
    """Return where the slopes start, and the least and the largest size at the end."""
    records = _slope_records(lab)
    if not records:
        return None
    start = next(slope for slope in records[0].observations[0].slopes or () if slope is not None)
    ends = [abs(slope) for record in records for slope in _last(record).slopes or () if slope is not None]
    return start, min(ends), max(ends)


def _alpha_ratios(lab: Lab) -> tuple[float, float, float] | None:
    """Return the least, the largest and the mean ratio of DyT's alpha to 1 / std of its input."""
    records = [record for record in lab.compared["record"] if record.card.startswith("dyt") and not _diverged(record)]
    alphas = [alpha for record in records for alpha in _last(record).alphas or ()]
    ratios = [alpha.alpha / alpha.inverse_std for alpha in alphas if alpha.inverse_std and alpha.alpha is not None]
    return (min(ratios), max(ratios), fmean(ratios)) if ratios else None


def _sparsity_rows(lab: Lab) -> list[dict[str, Any]]:
    """Return one row for each diagnosed model that has zeros."""
    rows = []
    for record in lab.diagnoses:
        shares = {role: [share for share in getattr(record.sparsity, role) if share is not None] for role in ("qkv", "up", "down")}
        zeros = {role: fmean(layers) if layers else None for role, layers in shares.items()}
        rows.append({"model": record.model.rpartition("/")[2], **zeros, "saved": record.flops.share})
    rows.sort(key=lambda row: row["model"])
    return [row for row in rows if any(isinstance(cell, float) and cell > 0.001 for cell in row.values())]


def _conversion_row(record: TrainingRecord) -> dict[str, Any]:
    origin, before = record.origin, _before(record).perplexity
    end = math.inf if record.held_out is None or record.held_out.perplexity is None else record.held_out.perplexity
    after = origin.after if origin and origin.surgery else None
    return {
        "source": _source(record),
        "surgery": _surgery(record),
        "before": math.inf if before is None else before,
        "after": None if after is None else math.inf if after.perplexity is None else after.perplexity,
        "tokens": record.corpus.tokens_seen,
        "end": end,
        "change": format_change(end, math.inf if before is None else before),
    }


def _before(record: TrainingRecord) -> HeldOut:
    """Return the quality of the model that was converted, or of the one that was not."""
    origin = record.origin
    quality = origin and (origin.before if origin.surgery else origin.held_out)
    assert quality is not None
    return quality


def _source(record: TrainingRecord) -> str:
    """Return the folder of the model that was converted, or of the one that was not."""
    origin = record.origin
    return "" if origin is None else str(origin.source if origin.surgery else origin.model)


def _surgery(record: TrainingRecord) -> str:
    surgery = (record.origin and record.origin.surgery) or {}
    return ", ".join(f"{switch} {str(value).lower()}" for switch, value in surgery.items()) or "none, to compare"


def recovery(record: TrainingRecord) -> Recovery:
    """Return a conversion's perplexities on the sample of held-out text that was observed along fine-tuning."""
    losses = {row.tokens: row.held_out_loss for row in record.observations if row.held_out_loss is not None}
    sample = _before(record).sample
    before = math.inf if sample is None or sample.loss is None else _perplexity(sample.loss)
    label = f"{_source(record)}: {_surgery(record)}"
    return Recovery(label, before, list(losses), [_perplexity(loss) for loss in losses.values()])


def _perplexity(loss: float) -> float:
    """Return e^loss, infinite where a float overflows."""
    return math.exp(loss) if loss < LARGEST_LOSS else math.inf


# ---- commands


def _commands(lab: Lab) -> Iterator[str]:
    """Yield the commands that make the records: a loop over the seeds, then conversions, diagnoses and estimates."""
    scratch = lab.trainings[lab.trainings["from_scratch"]]
    stems = [path.stem.removesuffix(f"-seed{seed}") for path, seed in zip(scratch["path"], scratch["seed"], strict=True)]
    for _, group in scratch.groupby(stems, sort=False):
        first = group.iloc[0]
        lines = frames.training_commands(first["path"], first["record"], RECORDS / LAB)
        yield f"for seed in {' '.join(map(str, group['seed']))}; do"
        for line in lines:
            yield "  " + line.replace(f"--seed {first['seed']} ", "--seed $seed ").replace(f"-seed{first['seed']}", "-seed$seed")
        yield "done"
    for row in sorted(lab.conversions.itertuples(), key=lambda row: _depth(row.path, row.record)):
        yield from [" ".join(row.record.origin.argv)] if row.record.origin.argv else []
        yield from frames.training_commands(row.path, row.record, RECORDS / LAB)
    yield from map(frames.command_line, lab.diagnoses)
    for model, estimate in lab.estimates.items():
        yield f"{frames.command_line(estimate)} > {RECORDS / LAB}/estimate-{model}.json"


def _depth(path: Path, record: TrainingRecord) -> tuple[bool, str]:
    """Return a key that puts conversions of conversions last."""
    return bool(record.origin and str(record.origin.source or "").endswith("finetuned")), path.name


# ---- figures


def drawings(lab: Lab) -> dict[str, Drawing]:
    """Return every figure that there are records for, by name."""
    heads = [(model, _last(record).entropy_share) for model, record in lab.trained()]
    along = [_series(model, record, lambda row: list(map(_mean, row.entropy_share))) for model, record in lab.trained()]
    drawn: dict[str, Drawing] = {
        "lab-quality": partial(figures.dot_plot, [_change(lab, model) for model in lab.groups]),
        "lab-entropy": partial(figures.heat_maps, heads),
        "lab-entropy-along": partial(figures.lines_by_layer, along, "entropy / maximum", top=1.0),
    }
    if maps := changed_maps(lab):
        drawn["lab-changed"] = partial(figures.heat_maps, maps)
    slopes = [
        _series(model, record, lambda row: list(row.slopes or ()))
        for model, record in lab.first.items()
        if _last(record).slopes
    ]
    if slopes:
        drawn["lab-slopes"] = partial(figures.lines_by_layer, slopes, "slope")
    if not lab.conversions.empty:
        drawn["lab-recovery"] = partial(figures.recoveries, list(map(recovery, lab.conversions["record"])))
    return drawn


def _change(lab: Lab, model: str) -> Change:
    """Return every seed's change against the baseline's mean, beside the published one."""
    reference = lab.seeds[BASELINE].mean
    published = PUBLISHED[model][1] if model in PUBLISHED and model != BASELINE else None
    return Change(model, [value / reference - 1 for value in lab.seeds[model].values if math.isfinite(value)], published)


def changed_maps(lab: Lab) -> list[tuple[str, Matrix]]:
    """Return the heads' entropies at the end of every changed training, with what was changed as title."""
    groups = [group for group in changed_groups(lab) if not group["diverged"].iloc[0]]
    titles = [[group["model"].iloc[0], *(change.partition(" for ")[0] for change in changes(lab, group))] for group in groups]
    return [("\n".join(title), _last(group["record"].iloc[0]).entropy_share) for title, group in zip(titles, groups, strict=True)]


def _series(model: str, record: TrainingRecord, layers: Callable[[Observation], list[Any]]) -> LayerSeries:
    """Return a quantity of each layer along a training."""
    values = zip(*map(layers, record.observations), strict=True)
    return LayerSeries(model, [row.tokens for row in record.observations], [list(layer) for layer in values])


def _mean(heads: tuple[float | None, ...]) -> float:
    shares = [share for share in heads if share is not None]
    return fmean(shares) if shares else math.nan
