"""Sample records: an estimate, a run and a training of the four designs, with figures written by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from pi_sim import records, specs
from pi_sim.cost.cost import Cost, Machine, Work
from pi_sim.cost.estimate import Estimate, Row
from pi_sim.files import write_text
from pi_sim.network import PRESETS
from pi_sim.records import SecondsEach

ACTIVATION_COST = Cost.symmetric(38, 31_000_000, 9_000_000)
PERPLEXITIES = {"gelu_ln": 20.0, "relu_ln": 20.4, "gelu_nonorm": 22.0, "relu_nonorm": 21.0}


MACHINE = Machine(
    name="a machine",
    source="written",
    seconds_each=SecondsEach(macs=1e-9, elements=1e-9, random=0, calls=0, rounds=1e-3),
)


def estimate(model: str = "relu_nonorm", protocol: str = "crypten") -> Estimate:
    """Return the estimate of a small model: 2 rounds for the embedding, 40 in each of two layers, 1 for the output.

    Norms come on top.
    """
    activation = model.split("_")[0]
    rows = [
        Row("transformer.wte", "embedding", "(300x16, 8x300)", 1, Cost.symmetric(2, 4_000_000, 100_000)),
        *(
            row
            for layer in range(2)
            for row in (
                *norms(model, f"transformer.h.{layer}.ln_1"),
                Row(f"transformer.h.{layer}", "add", "(8x16, 8x16)", 2, Cost()),
                Row(f"transformer.h.{layer}.mlp", "linear", "(8x16, 16x64)", 2, Cost.symmetric(2, 250_000, 125_000)),
                Row(
                    f"transformer.h.{layer}.mlp.act", activation, "(8x64)", 1, Cost.symmetric(38, 31_000_000, 9_000_000)
                ),
            )
        ),
        Row("output", "reveal", "(8x300)", 1, Cost.symmetric(1, 19_200, 0)),
    ]
    networks = [PRESETS["lan"], PRESETS["wan"]]
    return Estimate(model, "tiny", protocol, 128, rows, frozenset({"transformer.wte", "output"}), networks)


def measured_estimate() -> Estimate:
    """Return an estimate on `MACHINE`; every operation takes a million multiplications."""
    rows = [replace(row, work=row.count * Work(macs=1_000_000)) for row in estimate().rows]
    return replace(estimate(), rows=rows, machine=MACHINE)


def norms(model: str, module: str) -> list[Row]:
    """A LayerNorm sends little, but in many rounds."""
    return [Row(module, "layernorm", "(8x16)", 1, Cost.symmetric(20, 64_000, 8_000))] if model.endswith("_ln") else []


def save(path: Path, kind: str, table: dict[str, Any], command: str | None = None) -> None:
    """Write a table as a record of its kind, made by a command: by default one that fits the table."""
    record = records.stamp(records.SCHEMAS[kind].model_validate({**table, "kind": kind}))
    words = (command or default_command(path, kind, table)).split()
    write_text(path, records.dumps(record.model_copy(update={"argv": ("pi-sim", *words)})))


def default_command(path: Path, kind: str, table: dict[str, Any]) -> str:
    """Return the command of a training or a run, without settings."""
    if kind == "training":
        seed = f" --seed {table['seed']}" if table["seed"] else ""
        return f"train --model {table['card']}{seed} --out runs/{path.stem}"
    model, protocol, network = f"--model {table['model']}", f"--protocol {table['protocol']}", table["network"]
    imitated = "" if network == "none" else f" --network {network}"
    sequences = f"--sequences {table['sequences']} --json reports/records/{path.name}"
    return f"run two-party {model} {protocol}{imitated} {sequences}"


def run_record(model: str = "relu_nonorm", protocol: str = "crypten", **changes: Any) -> dict[str, Any]:
    """Return the record of a two-party run of that model."""
    predicted = estimate(model, protocol).to_json()
    counts = {key: predicted["total"][key] for key in ("rounds", "bytes", "offline_bytes")}
    seconds = {"seconds": 3.5, "compute_seconds": 2.25, "communication_seconds": 1.25, "setup_seconds": 4.0}
    outcome = {
        "sequences": 2,
        "network": "lan",
        "measured": {**counts, **seconds},
        "perplexity": {"plain": PERPLEXITIES[model] + 1, "private": PERPLEXITIES[model] + 1.02},
        "agreement": {"max_abs": 0.0312, "mean_abs": 0.00214, "top1": 0.996, "corrupted_positions": 0},
    }
    return {**predicted, **outcome, **changes}


def held_out(perplexity: float | None) -> dict[str, Any]:
    """The quality of a training, with a perplexity that overflowed as None."""
    return {"perplexity": perplexity, "bits_per_byte": 1.7, "tokens": 651_129}


def training_record(model: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the record of a training of that model."""
    card, size = specs.load_model_card(model), specs.load_size("tiny")
    worth = PERPLEXITIES[model] + seed / 10
    return {
        "card": model,
        "size": "tiny",
        "architecture": card.architecture.model_dump(),
        "dimensions": size.model_dump(exclude={"name", "title", "training"}),
        "recipe": size.training.model_dump(),
        "seed": seed,
        "corpus": {"name": "packages", "sha256": "0" * 64, "tokens_seen": 4_915_200},
        "parameters": 1_334_016,
        "loss_curve": [[step, round(math.log(worth) + 60 / step, 4)] for step in range(10, 210, 10)],
        "seconds": 500.0,
        "held_out": held_out(worth),
        **changes,
    }
