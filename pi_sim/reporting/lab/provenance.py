"""How the lab's records came about: the shared recipe, the reasons that were tested, every command."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pi_sim import specs
from pi_sim.reporting import usual
from pi_sim.reporting.lab.findings import FOLDER, OWN, Lab
from pi_sim.reporting.recorded import Training
from pi_sim.reporting.sections.provenance import RECORDS, changes, environment
from pi_sim.reporting.sections.training import parameters

PLACE = f"{RECORDS}/{FOLDER}"
GIVEN = ("init_std", "embedding_scale", "logit_scale", "embedding_dropout", "tokens")
"""Of a fine-tuning's recipe: what the checkpoint decides, and what has an option of its own."""


def subject(lab: Lab) -> str:
    """Dimensions, text and recipe, which all compared designs share."""
    trainings = [each for found in lab.compared.values() for each in found]
    record = next(each for each in trainings if not each.diverged).record
    known, recipe = record["dimensions"], record["recipe"]
    size = f"{known['layers']} layers, {known['heads']} heads, width {known['width']}, context {known['context']}"
    seen = f"{record['corpus']['tokens_seen']:,} tokens of the corpus `{record['corpus']['name']}`"
    scales = "embedding and logits have learned scales; " if recipe["embedding_scale"] and recipe["logit_scale"] else ""
    return (
        f"{size}, a vocabulary of {known['vocabulary']:,}: {parameters(trainings)}. Each design saw {seen}. "
        f"Weights start with a standard deviation of {recipe['init_std']:g}; {scales}"
        f"arithmetic is in {'bfloat16' if recipe['bf16'] else 'float32'}. Signs and orders can be compared with the "
        f"papers', whose models and texts are far larger, sizes of effects hardly.{_priced(lab)}"
    )


def _priced(lab: Lab) -> str:
    """Whose costs they are; nothing where nothing was estimated."""
    protocols = sorted({each["protocol"] for each in lab.estimates.values()})
    return f" Costs are those of one sequence under {' and '.join(protocols)}." if protocols else ""


def reasons(lab: Lab) -> str:
    """What the changed trainings are there for; nothing where there are none."""
    if not lab.changed:
        return ""
    return (
        "Where a result differs from a paper's, or hangs on this small size, something was changed to test a reason: "
        "the two learned scales, which the papers' recipe does not have; the scale of the first weights (`init_std`), "
        "because a net without norms cannot make up for a small one; and the alpha that DyT starts with, because at "
        "this width its input is first far smaller than 1 / alpha, so that DyT begins as no norm at all."
    )


def converted(lab: Lab) -> str:
    """What was converted, and how it was fine-tuned; nothing where nothing was."""
    if not lab.conversions:
        return ""
    return (
        "As in ReLU Strikes Back: surgery on a trained model, then fine-tuning on the same text. Stage 1 puts ReLU for "
        "GELU, stage 2 a ReLU after each norm of a model that went through stage 1; norms are also replaced by DyT, "
        "which starts with alpha = 1 / std of what each norm read and with the norm's gain and bias, and by nothing. "
        "One model was trained on without surgery, to tell recovery from mere further training."
    )


def commands(lab: Lab) -> str:
    """The commands that make these records and this page anew."""
    trained = [line for each in _by_seed(lab) for line in _trained(each)]
    finetuned = [line for each in sorted(lab.conversions, key=_depth) for line in _finetuned(each)]
    looked = [_looked(each) for each in lab.diagnoses]
    priced = [_estimated(each) for each in lab.estimates.values()]
    return "\n".join(["```sh", *trained, *finetuned, *looked, *priced, "pi-sim report", "```"])


def _by_seed(lab: Lab) -> list[list[Training]]:
    """Trainings from scratch, those that differ in the seed alone together."""
    groups: dict[str, list[Training]] = {}
    for each in lab.trainings:
        if not each.record["origin"]:
            groups.setdefault(_stem(each), []).append(each)
    return list(groups.values())


def _stem(training: Training) -> str:
    return training.path.stem.removesuffix(f"-seed{training.record['seed']}")


def _trained(alike: list[Training]) -> Iterator[str]:
    """A loop over the seeds."""
    folder = f"{_stem(alike[0])}-seed$seed"
    settings = " ".join(f"--set {key}={value}" for key, value in changes(alike[0].record).items())
    seeds = " ".join(str(each.record["seed"]) for each in alike)
    yield f"for seed in {seeds}; do"
    options = _options(alike[0].record, "size") + _text(alike[0].record)
    yield f"  pi-sim train --model {alike[0].model} --seed $seed{options} {settings} --out runs/{folder}"
    yield f"  cp runs/{folder}/record.json {PLACE}/{folder}.json"
    yield "done"


def _finetuned(training: Training) -> Iterator[str]:
    """The conversion, if there was one, and the fine-tuning."""
    record, origin, name = training.record, training.record["origin"], training.path.stem
    if origin["surgery"]:
        source, switches = _checkpoint(origin["source"]), _switches(origin["surgery"])
        yield f"pi-sim convert {source} {switches} --out runs/{origin['model']}"
    settings = " ".join([f"--tokens {record['recipe']['tokens']}", *_set(record)])
    options = _options(record, "seed") + _text(record)
    yield f"pi-sim train --from {_checkpoint(origin['model'])}{options} {settings} --out runs/{name}"
    yield f"cp runs/{name}/record.json {PLACE}/{name}.json"


def _looked(record: dict[str, Any]) -> str:
    options = _options(record, "size", "seq_len", "sequences", "protocol")
    text = "" if record["text"] == "held-out" else f" --corpus {record['text']}"
    place = f"{PLACE}/diagnosis-{Path(record['model']).name}.json"
    return f"pi-sim diagnose --model {record['model']}{options}{text} --json {place}"


def _estimated(record: dict[str, Any]) -> str:
    options = _options(record, "size", "seq_len", "protocol")
    place = f"{PLACE}/estimate-{record['model']}.json"
    return f"pi-sim estimate --model {record['model']}{options} --format json > {place}"


def _options(record: dict[str, Any], *names: str) -> str:
    """Those of a command that have not their defaults; a checkpoint's size and context are its own."""
    context = usual.context("tiny" if record["size"] == "own" else record["size"])
    usually: dict[str, tuple[Any, ...]] = {"size": ("tiny", "own"), "seq_len": (context,), "protocol": ("crypten",)}
    usually |= {"seed": (0,), "sequences": (32,)}
    chosen = [(name.replace("_", "-"), record[name]) for name in names if record[name] not in usually[name]]
    return "".join(f" --{name} {value}" for name, value in chosen)


def _text(record: dict[str, Any]) -> str:
    return "" if record["corpus"]["name"] == "packages" else f" --corpus {record['corpus']['name']}"


def _set(record: dict[str, Any]) -> Iterator[str]:
    """The settings in which a fine-tuning parts from its size's recipe."""
    usually = usual.recipe(record["card"], record["size"])
    for key, value in sorted(record["recipe"].items()):
        if key not in (*GIVEN, *OWN) and usually[key] != value:
            yield f"--set {key}={value}"


def _checkpoint(name: str) -> str:
    """Where a checkpoint lies: what ships has a place of its own."""
    shipped = specs.facts() / "models" / "weights" / name
    return f"models/weights/{name}" if shipped.is_dir() else f"runs/{name}"


def _switches(surgery: dict[str, Any]) -> str:
    """As options of `pi-sim convert`."""
    return " ".join(
        f"--{switch.replace('_', '-')}" + ("" if value is True else f" {value}") for switch, value in surgery.items()
    )


def _depth(training: Training) -> tuple[bool, str]:
    """What was converted from another conversion comes after it."""
    return str(training.record["origin"]["source"] or "").endswith("finetuned"), training.path.name


def environments(lab: Lab) -> str:
    """Versions and machines, and how long it took."""
    found = sorted({environment(each.record) for each in lab.trainings})
    hours = sum(each.record["seconds"] for each in lab.trainings) / 3600
    threads = sorted({each.record["threads"] for each in lab.trainings})
    spent = f"{len(lab.trainings)} trainings, {hours:.1f} hours with {' or '.join(map(str, threads))} thread each:"
    return "\n".join([spent, "", *(f"- {place}" for place in found)])
