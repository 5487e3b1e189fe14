"""The profile of this machine, measured on real runs of two parties: `pi-sim calibrate`.

One-layer models of two sizes run under stock CrypTen and under `lean`, with both kinds of dealer. The unit costs are
fitted to the seconds of every operation there, because the same operation is faster when it is repeated alone: its
operands and its code stay in the caches, and the other party is never busy with something else.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from pi_sim import records, specs
from pi_sim.cost.cost import Machine, Work
from pi_sim.cost.pricing import price_op
from pi_sim.errors import RunError
from pi_sim.graph.bundle import Bundle, read_bundle, write_bundle
from pi_sim.inference import dealing
from pi_sim.inference.two_party import rewrite_model
from pi_sim.mpc import launch
from pi_sim.mpc.dealer.dealers import DEALT_FILE, FIRST_PARTY
from pi_sim.specs import ExecutableProtocol
from pi_sim.zoo.build import build_model

PROTOCOLS = ("crypten_tanh", "lean")
"""Stock kernels, and kernels that use no tuples of CrypTen's."""
DEALERS = (FIRST_PARTY, DEALT_FILE)
INDISPENSABLE_UNITS = ("macs", "elements", "calls")
CARD, SIZE = "gelu_ln", "tiny"
SEQUENCES = 3
LEAST_SECONDS = 1e-5
"""An operation that takes less weighs as one that takes this long: the clock is no better."""


class LayerSize(NamedTuple):
    """Dimensions of a one-layer model."""

    width: int
    heads: int
    tokens: int
    vocabulary: int


LAYERS = (LayerSize(128, 4, 128, 512), LayerSize(768, 12, 128, 256))
"""The width of the tiny models, and that of GPT-2."""


class Timing(NamedTuple):
    """Mean seconds of computing for one operation in a run, and the work that it is."""

    work: Work
    rounds: int
    seconds: float


def calibrate(
    progress: Callable[[float], None] = lambda fraction: None,
    layers: tuple[LayerSize, ...] = LAYERS,
    sequences: int = SEQUENCES,
) -> Machine:
    """Return this machine's profile.

    Raises `RunError` if a run fails, and if other work on the machine disturbed the measurement.
    """
    plan = list(product(layers, map(specs.load_executable_protocol, PROTOCOLS), DEALERS))
    timings: list[Timing] = []
    for index, (size, protocol, dealer) in enumerate(plan):
        timings += time_run(size, protocol, dealer, sequences)
        progress((index + 1) / len(plan))
    name = f"{records.cpu_name()}, {os.cpu_count()} cores"
    return Machine(name=name, source=f"pi-sim calibrate, {date.today()}", seconds_each=fit_unit_costs(timings))


def time_run(size: LayerSize, protocol: ExecutableProtocol, dealer: str, sequences: int) -> list[Timing]:
    """Run a layer between two parties; return the timing of each of its operations."""
    tokens = torch.randint(size.vocabulary, (sequences, 1, size.tokens))
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        bundle = _write_layer(Path(scratch) / "bundle", size, protocol)
        spec = dealing.deal_ahead(bundle.folder, protocol, dealer, sequences, Path(scratch) / DEALT_FILE)
        os.sync()  # writing the file takes no time from the run
        outcome = launch.run_local(bundle, protocol, {"tokens": tokens}, dealer=spec)
    up_to_node = np.array([[0.0, *counters["node_seconds"]] for counters in outcome.counts[0]])
    seconds = np.diff(up_to_node, axis=1).mean(axis=0).tolist()
    prices = [price_op(node.op, protocol) for node in bundle.graph.nodes]
    works = [price.compute_work(dealer == FIRST_PARTY) or Work() for price in prices]
    rounds = [price.cost.rounds for price in prices]
    return [timing for timing in map(Timing, works, rounds, seconds) if timing.work != Work()]


def layer_model(size: LayerSize) -> PreTrainedModel:
    """Return a GELU transformer of one layer with random weights, the same at every call."""
    dimensions = {"layers": 1, "width": size.width, "heads": size.heads}
    dimensions |= {"context": size.tokens, "vocabulary": size.vocabulary}
    torch.manual_seed(0)
    return build_model(specs.load_model_card(CARD), specs.load_size(SIZE).model_copy(update=dimensions)).eval()


def _write_layer(folder: Path, size: LayerSize, protocol: ExecutableProtocol) -> Bundle:
    graph, weights = rewrite_model(layer_model(size), size.tokens, protocol)
    origin = {"model": CARD, "size": SIZE, "seq_len": size.tokens}
    write_bundle(folder, graph, weights, origin, folder.parent, dealing.deployment_of(protocol))
    return read_bundle(folder)


def fit_unit_costs(timings: list[Timing]) -> records.SecondsEach:
    """Return the seconds of each unit of work and of a round that fit the seconds of all operations best.

    Squared errors count in proportion to the seconds of an operation, between absolute and relative ones.
    """
    units = list(records.SecondsEach.model_fields)
    tables = [{**asdict(timing.work), "rounds": timing.rounds} for timing in timings]
    amounts = np.array([[table[unit] for unit in units] for table in tables], float)
    seconds = np.array([timing.seconds for timing in timings])
    weights = 1 / np.sqrt(np.maximum(seconds, LEAST_SECONDS))
    fitted, kept = dict.fromkeys(units, 0.0), units
    while min(fitted.values()) < 0 or not any(fitted.values()):  # a unit that would be negative is left out
        columns = amounts[:, [units.index(unit) for unit in kept]] * weights[:, None]
        scales = np.maximum(columns.max(axis=0), np.finfo(float).tiny)  # of macs there are 10^9, of rounds 10
        solution = (np.linalg.lstsq(columns / scales, seconds * weights)[0] / scales).tolist()
        fitted = dict.fromkeys(units, 0.0) | dict(zip(kept, solution, strict=True))
        kept = [unit for unit in kept if fitted[unit] > min(0.0, *solution)]
    if not all(fitted[unit] for unit in INDISPENSABLE_UNITS):
        raise RunError("other work on this machine disturbed the measurement; run pi-sim calibrate once more.")
    return records.SecondsEach(**fitted)


def load_warning() -> str | None:
    """Return a warning if this machine is busy with other work, None if it is free to be measured."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < cores / 2:
        return None
    return f"other work keeps this machine busy (load {load:.1f} on {cores} cores): it will seem slower than it is."
