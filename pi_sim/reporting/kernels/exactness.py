"""Whether results hold: truncations that went wrong, and private perplexities beside plain ones."""

from pi_sim import specs
from pi_sim.reporting.kernels.findings import OURS, Kernels
from pi_sim.reporting.recorded import Run
from pi_sim.reporting.tables import Cell, Column, Table
from pi_sim.reporting.units import COUNT, RATIO, Unit, perplexity

CHANGE = (Unit(0, "%", 0.01, 3),)
SHARE = (Unit(0, "%", 0.01, 2),)
LOGITS = (Unit(0, "", 1, 4),)
TRUNCATIONS = [
    Column("bound", "factors up to", COUNT),
    Column("protocol", "protocol"),
    Column("kernel", "kernel"),
    Column("number", "products", COUNT),
    Column("wrong", "wrong", COUNT),
    Column("expected", "expected if each party shifts its share", RATIO),
    Column("units", "units off, of the others at most", COUNT),
]
ACCURACY = [
    Column("model", "model"),
    Column("sequences", "sequences", COUNT),
    Column("plain", "plain perplexity"),
    Column("private", "private"),
    Column("difference", "difference", CHANGE),
    Column("top1", "same likeliest token", SHARE),
    Column("logits", "largest logit difference", LOGITS),
    Column("destroyed", "destroyed places", COUNT),
]


def truncations(kernels: Kernels) -> Table:
    """How many products came out wrong."""
    rows: list[list[Cell]] = [
        [each.bound, each.protocol, each.kernel, each.number, each.wrong, each.expected_locally, each.units]
        for each in kernels.bench.truncations
    ]
    return Table(TRUNCATIONS, rows)


def accuracy(kernels: Kernels) -> Table:
    """One row for each model that was run under our protocol."""
    return Table(ACCURACY, [_accuracy(model, run) for model, run in sorted(kernels.runs.items())])


def missing(kernels: Kernels) -> list[str]:
    """Shipped models whose run under our protocol no record tells."""
    weights = specs.facts() / "models" / "weights"
    shipped = sorted(path.parent.name.rpartition("-")[0] for path in weights.glob("*/record.json"))
    return [model for model in shipped if model not in kernels.runs]


def command(model: str) -> str:
    """What makes the record of one."""
    record = f"reports/records/run-{model}-tiny-{OURS}.json"
    return f"pi-sim run two-party --model {model} --protocol {OURS} --sequences 100 --json {record}"


def drift(run: Run) -> float | None:
    """The private perplexity against the plain one, all places counted; None beyond all numbers."""
    found = run.record["perplexity"]
    return found["private"] / found["plain"] - 1 if found["private"] and found["plain"] else None


def _accuracy(model: str, run: Run) -> list[Cell]:
    found, agreement = run.record["perplexity"], run.record["agreement"]
    told = [perplexity(found[key]) for key in ("plain", "private")]
    return [
        model, run.record["sequences"], *told, drift(run),
        agreement["top1"], agreement["max_abs"], run.destroyed,
    ]  # fmt: skip
