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
from dataclasses import astuple, fields
from datetime import date
from functools import partial
from timeit import timeit

import numpy as np
import torch

from pi_sim import records, specs
from pi_sim.cost.cost import Machine, Work
from pi_sim.cost.pricing import op_work
from pi_sim.errors import RunError
from pi_sim.graph.ops import Op
from pi_sim.mpc import backend, worker
from pi_sim.mpc.dealer.correlations import TensorSpec
from pi_sim.mpc.dealer.prg import AesCtrPrg, new_seed
from pi_sim.mpc.executor import apply_op
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.mpc.runtime import Runtime
from pi_sim.run.peer import PeerJob, call_party, connected_party, peer_process

STOCK_PROTOCOL, OWN_PROTOCOL = "crypten", "lean"
"""Stock kernels, and kernels that use no tuples of CrypTen's."""
BUDGET_S = 20.0
"""Seconds after which no further pass begins: a busy machine gets fewer of them."""
PASSES = 16
EXCHANGES = 100
LARGE_ELEMENTS = 2**18
"""More than a core keeps in its own caches, as between the layers of a model."""
SMALL_ELEMENTS = 8
PRODUCT_SIZES = ((128, 768, 768), (128, 128, 2048), (32, 1024, 1024))
"""m, k, n of m x k with k x n: between a tiny model's and GPT-2's."""


class CalibrationJob(PeerJob):
    """Work of both parties: `shrink` divides the sizes of the probes."""

    shrink: int
    passes: int


def timing_probes(shrink: int) -> list[tuple[str, list[Op]]]:
    """Return operations of a protocol in which one unit of work dominates: calls, tuples, elements, and MACs."""
    products = [tuple(max(1, size // shrink) for size in sizes) for sizes in PRODUCT_SIZES]
    return [
        (OWN_PROTOCOL, [Op("relu", ((1,),), (True,))]),
        (STOCK_PROTOCOL, [Op("softmax", ((1, SMALL_ELEMENTS),), (True,))]),
        (STOCK_PROTOCOL, [Op("relu", ((large_size(shrink),),), (True,))]),
        (STOCK_PROTOCOL, [Op("matmul", ((m, k), (k, n)), (True, True)) for m, k, n in products]),
    ]


def large_size(shrink: int) -> int:
    """Return the number of elements of the large tensors."""
    return max(1, LARGE_ELEMENTS // shrink)


def time_passes(connection: socket.socket, rank: int, job: CalibrationJob) -> Iterator[list[float]]:
    """Yield per pass the seconds of one exchange, of drawing a large random tensor, and of every probe."""
    probes = [(specs.load_executable_protocol(name), operations) for name, operations in timing_probes(job.shrink)]
    with (
        connected_party(connection, rank) as (link, source),
        Runtime.running(link, source, specs.load_executable_protocol(STOCK_PROTOCOL)) as rt,
    ):
        deadline = time.perf_counter() + BUDGET_S
        for index in range(job.passes):
            in_time = torch.tensor([int(rank == 0 and time.perf_counter() < deadline)])
            if index and not link.all_reduce(in_time).item():  # party 0 decides for both
                break
            computing = [sum(_time_compute(rt, op, protocol) for op in ops) for protocol, ops in probes]
            prg, large = AesCtrPrg(new_seed()), TensorSpec((large_size(job.shrink),))
            exchange = timeit(partial(link.all_reduce, torch.zeros(1, dtype=torch.long)), number=EXCHANGES) / EXCHANGES
            yield [exchange, timeit(partial(prg.draw, large), number=1), *computing]


def _time_compute(rt: Runtime, op: Op, protocol: specs.ExecutableProtocol) -> float:
    """Return the seconds of one operation without those of communication."""
    operands = [backend.fixed_point_tensor(torch.randint(2**20, shape)) for shape in op.shapes]
    before = float(rt.communicator.comm_time)
    seconds = timeit(lambda: apply_op(rt, op, operands, protocol), number=1)
    return seconds - (float(rt.communicator.comm_time) - before)


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
    job = CalibrationJob(shrink=shrink, passes=passes)
    works = [
        Work(random=WORD_BYTES * large_size(shrink), calls=1),
        *(_probe_work(name, operations) for name, operations in timing_probes(shrink)),
    ]
    seconds: list[list[float]] = []
    with peer_process(__name__, job) as connection:
        for pass_seconds in time_passes(connection, 0, job):
            seconds.append(pass_seconds)
            progress(len(seconds) / passes)
    progress(1.0)
    exchange, *typical = np.median(seconds, axis=0).tolist()
    unit_costs = records.SecondsEach(rounds=exchange, **fit_unit_costs(works, typical))
    name = f"{records.cpu_name()}, {os.cpu_count()} cores"
    return Machine(name=name, source=f"pi-sim calibrate, {date.today()}", seconds_each=unit_costs)


def fit_unit_costs(works: list[Work], seconds: list[float]) -> dict[str, float]:
    """Solve for the seconds of each unit of work, from the work and seconds of as many probes as there are units."""
    units = [field.name for field in fields(Work)]
    unit_seconds = np.linalg.solve(np.array([astuple(work) for work in works], dtype=float), np.array(seconds))
    if (unit_seconds <= 0).any():
        raise RunError("other work on this machine disturbed the measurement; run pi-sim calibrate once more.")
    return dict(zip(units, unit_seconds.tolist(), strict=True))


def _probe_work(protocol: str, operations: list[Op]) -> Work:
    executable = specs.load_executable_protocol(protocol)
    return sum((work for op in operations if (work := op_work(op, executable))), Work())


def load_warning() -> str | None:
    """Return a warning if this machine is busy with other work, None if it is free to be measured."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < cores / 2:
        return None
    return f"other work keeps this machine busy (load {load:.1f} on {cores} cores): it will seem slower than it is."


if __name__ == "__main__":
    sys.exit(worker.run_job(run_peer, CalibrationJob))
