"""What privacy did to the result: both perplexities on the same tokens, and the distance of the logits."""

from pi_sim import specs
from pi_sim.reporting import tables
from pi_sim.reporting.findings import Findings
from pi_sim.reporting.recorded import Run
from pi_sim.reporting.sections import subject
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, change, perplexity

COLUMNS = [
    Column("tokens", "tokens", COUNT),
    Column("plain", "plain perplexity", COUNT),
    Column("private", "private perplexity", COUNT),
    Column("change", "change", COUNT),
    Column("max_abs", "largest logit difference", COUNT),
    Column("mean_abs", "mean", COUNT),
    Column("top1", "same likeliest token", COUNT),
    Column("destroyed", "destroyed places", COUNT),
]
TRUNCATION = (
    "A place is destroyed where some logit is off by more than 1,000. Where they are few, a truncation failed there: "
    "each party shifts its own share after a product, which goes wrong with probability |x| / 2^64 (x the product in "
    "the ring) and is then off by 2^32. The change of the perplexity leaves these places out."
)


def privacy(findings: Findings) -> str:
    """The table of private against plain results, and a word on those that are wrong."""
    columns = [*subject.columns(findings.runs, subject.MEASURED), *COLUMNS]
    table = tables.render(Table(columns, [_row(findings, run) for run in findings.runs]), "markdown")
    rare = any(run.destroyed and not run.wrong for run in findings.runs)
    return "\n\n".join([table, *([TRUNCATION] if rare else []), *_explanations(findings)])


def effect(run: Run) -> str:
    """What privacy changed in the perplexity of the same tokens; nothing is known without a plain model."""
    plain, private = run.compared
    if plain is None:
        return "–"
    if run.wrong or private is None:
        return "wrong"
    lost = f", {run.destroyed} places lost" if run.destroyed else ""
    return change(private, plain) + lost


def _row(findings: Findings, run: Run) -> list[Cell]:
    record, agreement = run.record, run.record["agreement"]
    found = record["perplexity"]
    differences: list[Cell] = ["–"] * 4
    if agreement:
        far = [f"{agreement['max_abs']:.3g}", f"{agreement['mean_abs']:.3g}"]
        differences = [*far, f"{agreement['top1']:.1%}", f"{run.destroyed:,}"]
    plain = perplexity(found["plain"]) if agreement else "–"
    tokens = record["sequences"] * record["seq_len"]
    told = subject.cells(findings.runs, run, subject.MEASURED)
    return [*told, tokens, plain, perplexity(found["private"]), effect(run), *differences]


def _explanations(findings: Findings) -> list[str]:
    """Why GELU goes wrong under CrypTen's Taylor series, where a run shows that it does."""
    wrong = [run for run in findings.runs if run.wrong and _taylor(run)]
    protocols = sorted({run.protocol for run in wrong})
    return [
        f"Under `{protocol}` GELU is computed from CrypTen's erf, a Taylor series that is right for small inputs only. "
        f"The activations of {_names(wrong, protocol)} leave its range and the private result is wrong: what "
        "these runs tell is their cost."
        for protocol in protocols
    ]


def _taylor(run: Run) -> bool:
    """Whether the run computed GELU by the Taylor series of erf."""
    known = run.protocol in specs.names("protocols")
    by_series = known and specs.protocol_card(run.protocol).kernels.get("gelu") == "erf-taylor"
    return by_series and "gelu" in run.by_operation()


def _names(runs: list[Run], protocol: str) -> str:
    return " and ".join(dict.fromkeys(f"`{run.model}`" for run in runs if run.protocol == protocol))
