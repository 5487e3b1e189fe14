"""Where every number comes from: the conventions, the commands that made the records, versions and machines."""

from typing import Any

from pi_sim.cost.estimate import CONVENTIONS
from pi_sim.reporting import usual
from pi_sim.reporting.findings import Findings
from pi_sim.reporting.recorded import Run, Training
from pi_sim.reporting.runs import DEALER

WEIGHTS, RECORDS = "models/weights", "reports/records"
MORE_CONVENTIONS = (
    "held-out perplexity is the plain model's on the whole held-out split; plain and private perplexity beside each "
    "other are on the same tokens, the run's first held-out sequences, and of the seed that ships",
    "a private result is called wrong where its perplexity is more than a tenth above the plain one",
    "lan and wan are predicted seconds of the network alone; measured seconds are those of one sequence between two "
    "processes on one machine, on the imitated network that stands beside them; communicating includes waiting for "
    "the other party",
)
FRESH = (
    "In a checkout, these commands make all records and this page anew. A training starts in a new folder only: remove "
    f"those in `{WEIGHTS}` that it is to fill."
)


def conventions() -> str:
    """What the numbers mean."""
    return "\n".join(f"- {sentence}" for sentence in (*CONVENTIONS, *MORE_CONVENTIONS, DEALER.rstrip(".")))


def commands(findings: list[Findings]) -> str:
    """The commands that make these records and this page anew."""
    trainings = [line for each in findings for training in each.trainings for line in training_commands(training)]
    runs = [run_command(run) for each in findings for run in each.runs]
    return "\n\n".join([FRESH, "\n".join(["```sh", *trainings, *runs, "pi-sim report", "```"])])


def training_commands(training: Training) -> list[str]:
    """Train, and put the record where the page is made from: shipped weights lie there with theirs."""
    command = _train(training)
    if training.shipped:
        return [f"{command} --out {WEIGHTS}/{training.model}-{training.record['size']}"]
    folder = f"runs/{training.path.stem}"
    return [f"{command} --out {folder}", f"cp {folder}/record.json {RECORDS}/{training.path.name}"]


def _train(training: Training) -> str:
    """The command of a training: what it changes against the card, the size and the defaults."""
    record = training.record
    words = [f"pi-sim train --model {training.model}", _unless("size", record["size"], "tiny")]
    words += [_unless("corpus", record["corpus"]["name"], "packages"), _unless("seed", record["seed"], 0)]
    words += [f"--set {key}={value}" for key, value in changes(record).items()]
    return " ".join(word for word in words if word)


def changes(record: dict[str, Any]) -> dict[str, Any]:
    """The settings in which a training parts from its card and its size, as far as these are known."""
    known = {**usual.design(record["card"]), **usual.recipe(record["card"], record["size"])}
    chosen = {key: value for key, value in {**record["architecture"], **record["recipe"]}.items() if key in known}
    return {key: "none" if value is None else value for key, value in sorted(chosen.items()) if known[key] != value}


def run_command(run: Run) -> str:
    """The command of a run."""
    record = run.record
    words = [f"pi-sim run two-party --model {run.model}", _unless("size", record["size"], "tiny")]
    words += [f"--protocol {run.protocol}", _unless("seq-len", record["seq_len"], usual.context(record["size"]))]
    words += [_unless("network", record["network"], "none"), f"--sequences {record['sequences']}"]
    words += [f"--json {RECORDS}/{run.path.name}"]
    return " ".join(word for word in words if word)


def _unless(option: str, value: Any, default: Any) -> str:
    """An option of a command, unless it has its default."""
    return "" if value == default else f"--{option} {value}"


def environments(findings: list[Findings]) -> str:
    """The versions and machines, each with the records that were made there."""
    found: dict[str, list[str]] = {}
    for each in findings:
        for run in each.runs:
            found.setdefault(environment(run.record), []).append(f"run {run.model} {run.protocol}")
        for training in each.trainings:
            seed = training.record["seed"]
            found.setdefault(environment(training.record), []).append(f"training {training.model} seed {seed}")
    if len(found) == 1:
        return f"All records: {next(iter(found))}."
    return "\n".join(f"- {place}: {', '.join(dict.fromkeys(names))}" for place, names in sorted(found.items()))


def environment(record: dict[str, Any]) -> str:
    """Versions and machine in a line."""
    machine = record["machine"] or {}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(record.get("versions", {}).items()))
    hardware = f"{machine.get('cpu', 'unknown processor')}, {machine.get('cores', 'unknown')} cores"
    return f"{hardware}, {machine.get('system', 'unknown system')}; {versions}"
