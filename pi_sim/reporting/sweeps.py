"""A sweep as a page: the Pareto front of quality against seconds, and what has no price."""

from collections import Counter
from pathlib import Path

from pi_sim.cost.estimate import ALONE, COMPUTED, CONVENTIONS
from pi_sim.files import write_text
from pi_sim.reporting import tables
from pi_sim.reporting.estimates import tokens
from pi_sim.reporting.pareto import Comparison, comparisons
from pi_sim.reporting.tables import Column, Table
from pi_sim.reporting.trained import Quality
from pi_sim.reporting.units import COUNT, SECONDS, perplexity
from pi_sim.sweep.answers import Answer

MADE = "<!-- Made by `pi-sim sweep --report`: change what it was made from, not this page. -->"
TITLE = "# Quality against seconds"
INTRODUCTION = """\
Designs are compared where they were trained alike: at the same size, from scratch, on as much of the same text.
Perplexity is that of held-out text, the mean over the seeds of the recipe that was repeated most often. A design is on
the Pareto front of a network if no other is as good in both perplexity and seconds and better in one."""
NOTHING = """\
No records tell the perplexities of two designs that have a price here and were trained alike, so there is nothing to
compare; --records names a folder with records of trainings."""
CAPTION = "Held-out perplexity against predicted seconds. On the line: designs that no other beats in both."


def report(answers: list[Answer], qualities: list[Quality], path: Path) -> list[Path]:
    """Write the page and a figure for each comparison; what was written, the page last."""
    found = list(comparisons(answers, qualities))
    names = [f"figures/{path.stem}-{number}.svg" for number in range(1, len(found) + 1)]
    for name, comparison in zip(names, found, strict=True):
        write_text(path.parent / name, _figure(comparison))
    write_text(path, page(answers, dict(zip(names, found, strict=True))) + "\n")
    return [*(path.parent / name for name in names), path]


def page(answers: list[Answer], found: dict[str, Comparison]) -> str:
    """The page without a final line break; comparisons by the file of their figure."""
    parts = [MADE, TITLE, summary(answers), INTRODUCTION if found else NOTHING]
    for name, comparison in found.items():
        parts += [heading(comparison), f"![{CAPTION.split('.')[0]}]({name})\n\n*{CAPTION}*", table(comparison)]
    if missing := without_perplexity(answers, list(found.values())):
        parts += ["## Without a perplexity to compare", missing]
    if refused := without_price(answers):
        parts += ["## Without a price", refused]
    return "\n\n".join([*parts, "## What the numbers mean", conventions(answers)])


def summary(answers: list[Answer]) -> str:
    """How much was asked."""
    axes = {"design": "model", "size": "size", "length": "seq_len", "protocol": "protocol", "network": "network"}
    counts = [(len({getattr(each, key) for each in answers}), noun) for noun, key in axes.items()]
    told = ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for count, noun in counts)
    lacking = sum(each.seconds is None for each in answers)
    return f"{len(answers):,} estimates: {told}; {lacking:,} of them without a price."


def heading(comparison: Comparison) -> str:
    """Size and text, protocol and question."""
    asked, quality = comparison.subject, comparison.quality
    read = tokens(asked.seq_len, asked.batch, asked.past) + (", inner" if asked.only_inner else "")
    trained = f"trained on {quality.tokens:,} tokens of {quality.corpus}"
    return f"## {asked.protocol}, {read}\n\nSize {quality.size}, {trained}."


def table(comparison: Comparison) -> str:
    """Every design, the best first, and on which networks' fronts it is."""
    networks = comparison.networks
    columns = [
        Column("model", "design"),
        Column("perplexity", "perplexity", COUNT),
        Column("seeds", "seeds", COUNT),
        *(Column(network, network, SECONDS) for network in networks),
        Column("front", "on the front of"),
    ]
    rows = [
        [
            model,
            perplexity(seeds.mean),
            len(seeds.values),
            *(seconds.get(model) for seconds in networks.values()),
            ", ".join(network for network in networks if model in comparison.front(network)),
        ]
        for model, seeds in comparison.designs.items()
    ]
    return tables.render(Table(columns, rows), "markdown")


def without_perplexity(answers: list[Answer], found: list[Comparison]) -> str:
    """The designs that have a price and are in no comparison."""
    compared = {(each.quality.size, model) for each in found for model in each.designs}
    priced = dict.fromkeys((each.size, each.model) for each in answers if each.seconds is not None)
    return "\n".join(f"- {model} ({size})" for size, model in priced if (size, model) not in compared)


def without_price(answers: list[Answer]) -> str:
    """Each reason once, with the number of estimates that it prevents."""
    reasons = Counter(each.reason for each in answers if each.reason)
    return "\n".join(f"- {count:,} estimates: {reason}" for reason, count in reasons.items())


def conventions(answers: list[Answer]) -> str:
    """What the numbers mean, as under an estimate."""
    computed = {COMPUTED.format(each.machine): None for each in answers if each.compute_seconds is not None}
    alone = {ALONE: None} if any(each.compute_seconds is None for each in answers) else {}
    return "\n".join(
        f"- {sentence}" for each in CONVENTIONS for sentence in ({**alone, **computed} if each == ALONE else [each])
    )


def _figure(comparison: Comparison) -> str:
    from pi_sim.reporting.figures.pareto import fronts
    from pi_sim.reporting.figures.style import svg

    return svg(lambda: fronts(comparison))
