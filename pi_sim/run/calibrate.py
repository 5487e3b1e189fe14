"""The profile of this machine, measured by two parties on it: `pi-sim calibrate`.

Both parties go through the same probes in step, over a real connection, with the threads of a run: they compute at once
and share caches and memory, as they do in a run. They repeat all probes in passes, so that other work on the machine
does not disturb one probe every time. The second party is a worker: `python -m pi_sim.run.calibrate`.
"""

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from timeit import timeit
from typing import Any

import numpy as np
import torch

from pi_sim import records, specs
from pi_sim.cost.cost import Machine, Work
from pi_sim.cost.pricing import op_work, price_op
from pi_sim.errors import RunError
from pi_sim.graph.ops import Op
from pi_sim.mpc import backend, worker
from pi_sim.mpc.dealer.correlations import TensorSpec
from pi_sim.mpc.dealer.prg import AesCtrPrg, new_seed
from pi_sim.mpc.executor import apply_op, fixed_operand, open_weights, prepare_op
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.mpc.runtime import Runtime
from pi_sim.run.peer import PeerJob, call_party, connected_party, peer_process

STOCK_PROTOCOL, OWN_PROTOCOL = "crypten_tanh", "lean"
"""Stock kernels, and kernels that use no tuples of CrypTen's."""
BUDGET_S = 20.0
"""Seconds after which no further pass begins: a busy machine gets fewer of them."""
PASSES = 16
EXCHANGES = 100
LARGE_ELEMENTS = 2**18
"""More than a core keeps in its own caches, as between the layers of a model."""
SMALL_ELEMENTS = 8
INDISPENSABLE_UNITS = ("macs", "elements", "calls")
LAYERS = ((128, 128, 4), (128, 768, 12))
"""Tokens, width and heads of the layers whose operations are timed: a tiny model's and GPT-2's."""


class CalibrationJob(PeerJob):
    """Work of both parties: `shrink` divides the sizes of the probes."""

    shrink: int
    passes: int


@dataclass(frozen=True)
class Probe:
    """An operation under a protocol."""

    op: Op
    protocol: specs.ExecutableProtocol

    @property
    def work(self) -> Work:
        return op_work(self.op, self.protocol) or Work()

    @property
    def rounds(self) -> int:
        return price_op(self.op, self.protocol).cost.rounds


def timing_probes(shrink: int) -> list[Probe]:
    """Return operations of layers of two sizes under both protocols, and small ones, in which calls take the time."""
    stock, own = (specs.load_executable_protocol(name) for name in (STOCK_PROTOCOL, OWN_PROTOCOL))
    layers = [op for sizes in LAYERS for op in layer_operations(*(max(1, size // shrink) for size in sizes))]
    return [
        Probe(Op("relu", ((1,),), (True,)), own),
        Probe(Op("softmax", ((1, SMALL_ELEMENTS),), (True,)), stock),
        *(Probe(op, protocol) for protocol in (stock, own) for op in layers),
    ]


def layer_operations(tokens: int, width: int, heads: int) -> list[Op]:
    """Return the operations that take the time of a transformer layer."""
    hidden, queries = (tokens, width), (heads, tokens, max(1, width // heads))
    scores, up = (heads, tokens, tokens), (tokens, 4 * width)
    return [
        Op("linear", (hidden, (width, 3 * width)), (True, True)),
        Op("linear", (up, (4 * width, width)), (True, True)),
        Op("matmul", (queries, (heads, queries[-1], tokens)), (True, True)),
        Op("softmax", (scores,), (True,)),
        Op("layernorm", (hidden, (width,), (width,)), (True, True, True), (("eps", 1e-5),)),
        Op("gelu", (up,), (True,), (("approximate", "none"),)),
        Op("relu", (up,), (True,)),
    ]


def large_size(shrink: int) -> int:
    """Return the number of elements of the large tensor that is drawn."""
    return max(1, LARGE_ELEMENTS // shrink)


def time_passes(connection: socket.socket, rank: int, job: CalibrationJob) -> Iterator[list[float]]:
    """Yield per pass the seconds of one exchange, of drawing a large random tensor, and of every probe."""
    probes = timing_probes(job.shrink)
    with (
        connected_party(connection, rank) as (link, source),
        Runtime.running(link, source, specs.load_executable_protocol(STOCK_PROTOCOL)) as rt,
    ):
        operands = [_open_operands(rt, probe) for probe in probes]
        deadline = time.perf_counter() + BUDGET_S
        for index in range(job.passes):
            in_time = torch.tensor([int(rank == 0 and time.perf_counter() < deadline)])
            if index and not link.all_reduce(in_time).item():  # party 0 decides for both
                break
            computing = [_time_compute(rt, *pair) for pair in zip(probes, operands, strict=True)]
            prg, large = AesCtrPrg(new_seed()), TensorSpec((large_size(job.shrink),))
            exchange = timeit(partial(link.all_reduce, torch.zeros(1, dtype=torch.long)), number=EXCHANGES) / EXCHANGES
            yield [exchange, timeit(partial(prg.draw, large), number=1), *computing]


def _open_operands(rt: Runtime, probe: Probe) -> list[Any]:
    """Return random shares of the operands; a weight that is opened once per session is opened."""
    operands: list[Any] = [backend.fixed_point_tensor(torch.randint(2**20, shape)) for shape in probe.op.shapes]
    index = fixed_operand(probe.op, probe.protocol)
    if index is not None:
        (operands[index],) = open_weights(rt, [probe.op], [operands[index]], probe.protocol)
    return operands


def _time_compute(rt: Runtime, probe: Probe, operands: list[Any]) -> float:
    """Return the seconds of one operation without those of communication, as a run counts them."""
    op, protocol, path = probe.op, probe.protocol, rt.communicator.critical_path
    index = fixed_operand(op, protocol)
    if index is not None:
        operands = [*operands]
        operands[index] = prepare_op(rt, op, operands[index], protocol)
    rt.communicator.all_reduce(torch.zeros(1, dtype=torch.long))  # both begin at once
    before: float = path.network + path.delay
    seconds = timeit(lambda: apply_op(rt, op, operands, protocol), number=1)
    after: float = path.network + path.delay
    return seconds - (after - before)


def run_peer(job: CalibrationJob) -> None:
    """Run the second party through all passes, without results."""
    deque(time_passes(call_party(job), 1, job), maxlen=0)


def calibrate(
    progress: Callable[[float], None] = lambda fraction: None, shrink: int = 1, passes: int = PASSES
) -> Machine:
    """Return this machine's profile, from the median pass of each probe: runs are as often disturbed as probes.

    A `shrink` above 1 divides the sizes of the probes: quicker, and less accurate. Raises `RunError` if the second
    party fails, and if other work on the machine disturbed the measurement.
    """
    job, probes = CalibrationJob(shrink=shrink, passes=passes), timing_probes(shrink)
    draw = Work(random=WORD_BYTES * large_size(shrink), calls=1)
    works = [(Work(), 1), (draw, 0), *((probe.work, probe.rounds) for probe in probes)]
    seconds: list[list[float]] = []
    with peer_process(__name__, job) as connection:
        for pass_seconds in time_passes(connection, 0, job):
            seconds.append(pass_seconds)
            progress(len(seconds) / passes)
    progress(1.0)
    unit_costs = fit_unit_costs(works, np.median(seconds, axis=0).tolist())
    name = f"{records.cpu_name()}, {os.cpu_count()} cores"
    return Machine(name=name, source=f"pi-sim calibrate, {date.today()}", seconds_each=unit_costs)


def fit_unit_costs(works: list[tuple[Work, int]], seconds: list[float]) -> records.SecondsEach:
    """Return the seconds of each unit of work and of a round that fit the seconds of all probes best.

    Squared errors count in proportion to the seconds of a probe, between absolute and relative ones.
    """
    units = list(records.SecondsEach.model_fields)
    amounts = np.array([[{**asdict(work), "rounds": rounds}[unit] for unit in units] for work, rounds in works], float)
    weights = 1 / np.sqrt(np.maximum(seconds, 1e-9))
    fitted, kept = dict.fromkeys(units, 0.0), units
    while min(fitted.values()) < 0 or not any(fitted.values()):  # a unit that would be negative is left out
        columns = amounts[:, [units.index(unit) for unit in kept]] * weights[:, None]
        solution = np.linalg.lstsq(columns, np.array(seconds) * weights)[0].tolist()
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


if __name__ == "__main__":
    sys.exit(worker.run_job(run_peer, CalibrationJob))
