"""How far the papers' order of the four designs holds, computed from the records and said with no more than that."""

from itertools import combinations

from pi_sim.reporting import tables
from pi_sim.reporting.findings import DESIGNS, Findings
from pi_sim.reporting.sections.training import parameters, references
from pi_sim.reporting.seeds import Seeds
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, change, perplexity

PUBLISHED = {
    "gelu_ln": ("SM+LN+G", "2.69", ""),
    "relu_ln": ("SM+LN+R", "2.76", "+2.5%"),
    "relu_nonorm": ("SM+R", "2.94", "+9.2%"),
    "gelu_nonorm": ("SM+G", "3.20", "+18.9%"),
}
"""Design, perplexity and its change as printed in arXiv 2501.03489, table 2, the best first."""

GPT2_STD = 0.02
"""The standard deviation that GPT-2's own weights start with."""

SOURCES = (
    "The papers: [ReLU's Revival](https://arxiv.org/abs/2410.09637) reports that without norms ReLU is better than "
    "GELU, and that both stay behind LayerNorm. The published numbers are those of "
    "[arXiv 2501.03489](https://arxiv.org/abs/2501.03489), table 2, for GPT-2 with 12 layers at 128 tokens. Size, "
    "text, tokenizer and recipe are others here, so that at most the order of the designs can be compared."
)

CHANCE = (
    "An order counts as decided where the ranges over the seeds lie apart. With few seeds that is weak evidence: the "
    "table says in how many cases the ranges of two equally good designs would lie apart by chance."
)


def order(findings: Findings) -> str:
    """The published numbers beside ours, and what they have in common; nothing unless two designs were trained."""
    known = {model: found for model in DESIGNS if (found := findings.perplexity(model))}
    if len(known) < 2:
        return ""
    return "\n\n".join([f"{SOURCES} {_recipe(findings)}", _numbers(known), CHANCE, _verdicts(known), _scope(findings)])


def _recipe(findings: Findings) -> str:
    """What the recipe has that GPT-2's own has not; it can decide a comparison of norms."""
    recipe = references(findings)[0].record["recipe"]
    scales = {"embedding": recipe["embedding_scale"], "logits": recipe["logit_scale"]}
    learned = [f"a learned scale of the {name} that starts at {scale:g}" for name, scale in scales.items() if scale]
    changed = [f"weights that start with a standard deviation of {recipe['init_std']:g}, not GPT-2's {GPT2_STD:g}"]
    changed = (changed if recipe["init_std"] != GPT2_STD else []) + learned
    if not changed:
        return ""
    return (
        f"In particular every design has {_listed(changed)}. This was chosen so that networks without norms train well "
        "at this width. It may decide the comparison: what follows holds for this recipe."
    )


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _numbers(known: dict[str, Seeds]) -> str:
    columns = [
        Column("design", "design"),
        Column("model", "model"),
        Column("published", "published", COUNT),
        Column("published_change", "change", COUNT),
        Column("here", "here, mean", COUNT),
        Column("change", "change", COUNT),
        Column("seeds", "seeds", COUNT),
        Column("range", "least to largest", COUNT),
    ]
    return tables.render(Table(columns, [_row(known, model) for model in known]), "markdown")


def _row(known: dict[str, Seeds], model: str) -> list[Cell]:
    design, published, moved = PUBLISHED[model]
    found, baseline = known[model], known.get("gelu_ln")
    ours = change(found.mean, baseline.mean) if baseline and model != "gelu_ln" else ""
    return [design, model, published, moved, perplexity(found.mean), ours, len(found.values), found.range]


def _verdicts(known: dict[str, Seeds]) -> str:
    """Every two designs in the published order, and whether these trainings bear it out."""
    columns = [
        Column("order", "published order"),
        Column("here", "means here"),
        Column("change", "change", COUNT),
        Column("ranges", "ranges over the seeds"),
        Column("verdict", "verdict"),
    ]
    pairs = combinations([model for model in PUBLISHED if model in known], 2)
    rows: list[list[Cell]] = [
        [f"{better} ahead of {worse}", *_compared(known[better], known[worse])] for better, worse in pairs
    ]
    return tables.render(Table(columns, rows), "markdown")


def _compared(better: Seeds, worse: Seeds) -> list[Cell]:
    """Two designs, the published better one first."""
    means = f"{perplexity(better.mean)} and {perplexity(worse.mean)}"
    return [means, change(worse.mean, better.mean), _ranges(better, worse), verdict(better, worse)]


def _ranges(one: Seeds, other: Seeds) -> str:
    if not one.repeated(other):
        return "not repeated"
    return f"apart; by chance in {one.chance(other)}" if one.apart(other) else "overlap"


def verdict(better: Seeds, worse: Seeds) -> str:
    """Whether trainings bear out a published order, as far as their seeds can tell."""
    if not better.repeated(worse) or not better.apart(worse):
        return "not decided by these trainings"
    return "as published" if better.mean < worse.mean else "unlike the published order"


def _scope(findings: Findings) -> str:
    models = parameters(references(findings))
    return f"This is said of models of {models}, on their corpus and with their recipe, and of no others."
