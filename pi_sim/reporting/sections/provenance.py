"""Where every number comes from: the conventions, the commands that made the records, versions and machines."""

from typing import Any

from pi_sim import specs
from pi_sim.cost.estimate import CONVENTIONS
from pi_sim.reporting.findings import Findings, Run, Training
from pi_sim.reporting.runs import DEALER

MORE_CONVENTIONS = (
    "held-out perplexity is the plain model's on the whole held-out split; plain and private perplexity beside each "
    "other are on the same tokens, the run's first held-out sequences",
    "lan and wan are predicted seconds of the network alone; measured seconds are those of one sequence between two "
    "processes on one machine, on the imitated network that stands beside them; communicating includes waiting for "
    "the other party",
)


def conventions() -> str:
    """What the numbers mean."""
    return "\n".join(f"- {sentence}" for sentence in (*CONVENTIONS, *MORE_CONVENTIONS, DEALER.rstrip(".")))


def commands(findings: list[Findings]) -> str:
    """The commands that make these records and this page anew."""
    trainings = [training_command(training) for each in findings for training in each.trainings]
    runs = [run_command(run) for each in findings for run in each.runs]
    return "\n".join(["```sh", *dict.fromkeys(trainings), *runs, "pi-sim report", "```"])


def training_command(training: Training) -> str:
    """The command of a training: what it changes against the card, the size and the defaults."""
    record = training.record
    words = [f"pi-sim train --model {training.model}", _unless("size", record["size"], "tiny")]
    words += [_unless("corpus", record["corpus"]["name"], "packages"), _unless("seed", record["seed"], 0)]
    words += [f"--set {key}={value}" for key, value in _changes(record).items()]
    return " ".join(word for word in words if word)


def _changes(record: dict[str, Any]) -> dict[str, Any]:
    """The settings in which a training parts from its card and its size, as far as these are known."""
    if record["card"] not in specs.names("models") or record["size"] not in specs.names("models/sizes"):
        return {}
    card, size = specs.model_card(record["card"]), specs.size(record["size"])
    usual = {**card.architecture.model_dump(), **size.training.model_dump(), **card.training.get(size.name, {})}
    chosen = {**record["architecture"], **record["recipe"]}
    return {key: "none" if value is None else value for key, value in sorted(chosen.items()) if usual[key] != value}


def run_command(run: Run) -> str:
    """The command of a run."""
    record = run.record
    words = [f"pi-sim run two-party --model {run.model}", _unless("size", record["size"], "tiny")]
    words += [f"--protocol {run.protocol}", _unless("seq-len", record["seq_len"], _context(record["size"]))]
    words += [_unless("network", record["network"], "none"), f"--sequences {record['sequences']}"]
    words += [f"--json reports/records/{run.path.name}"]
    return " ".join(word for word in words if word)


def _context(size: str) -> int | None:
    return specs.size(size).context if size in specs.names("models/sizes") else None


def _unless(option: str, value: Any, default: Any) -> str:
    """An option of a command, unless it has its default."""
    return "" if value == default else f"--{option} {value}"


def environments(findings: list[Findings]) -> str:
    """The versions and machines, each with the records that were made there."""
    found: dict[str, list[str]] = {}
    for each in findings:
        for run in each.runs:
            found.setdefault(_environment(run.record), []).append(f"run {run.model} {run.protocol}")
        for training in each.trainings:
            seed = training.record["seed"]
            found.setdefault(_environment(training.record), []).append(f"training {training.model} seed {seed}")
    if len(found) == 1:
        return f"All records: {next(iter(found))}."
    return "\n".join(f"- {place}: {', '.join(dict.fromkeys(names))}" for place, names in sorted(found.items()))


def _environment(record: dict[str, Any]) -> str:
    """Versions and machine in a line."""
    machine = record.get("machine", {})
    versions = ", ".join(f"{name} {version}" for name, version in sorted(record.get("versions", {}).items()))
    hardware = f"{machine.get('processor', 'unknown processor')}, {machine.get('cores', 'unknown')} cores"
    return f"{hardware}, {machine.get('system', 'unknown system')}; {versions}"
