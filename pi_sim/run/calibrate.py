"""A machine's profile, measured by two parties on this machine."""

# MERGED: What a calibration times, and one party's part in it: `python -m pi_sim.run.calibrate PORT SHRINK PASSES`. Both parties go through the same probes in step, over a real connection, with the threads of a run: they compute at once and share caches and memory, as they do in a run. They go through all of them again and again, so that other work on the machine disturbs no probe every time.  # noqa: E501

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, fields
from datetime import date

import numpy as np
import torch

from pi_sim import records, specs
from pi_sim.cost.cost import Work
from pi_sim.cost.machine import Machine
from pi_sim.cost.pricing import op_work
from pi_sim.errors import RunError
from pi_sim.graph.ops import Op
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlations import TensorSpec
from pi_sim.mpc.dealer.prg import AesCtrPrg, new_seed
from pi_sim.mpc.executor import apply_op
from pi_sim.mpc.runtime import Runtime
from pi_sim.mpc.transport.link import Link
from pi_sim.run.peer import connected_party, peer_process

STOCK_PROTOCOL, OWN_PROTOCOL = "crypten", "lean"
"""Stock kernels, and some that ask for no tuples of CrypTen's."""
BUDGET_S = 20.0
"""Seconds after which no further pass begins: a busy machine gets fewer of them."""
EXCHANGES = 100
LARGE_ELEMENTS = 2**18
"""More than a core keeps in its own caches, as between the layers of a model."""
SMALL_ELEMENTS = 8
PRODUCT_SIZES = ((128, 768, 768), (128, 128, 2048), (32, 1024, 1024))
"""m, k, n of m x k with k x n: between a tiny model's and GPT-2's."""


def timing_probes(shrink: int) -> list[tuple[str, list[Op]]]:
    """Operations of a protocol in which one unit dominates: calls, tuples, elements, and multiply-accumulates."""
    products = [tuple(max(1, size // shrink) for size in sizes) for sizes in PRODUCT_SIZES]
    return [
        (OWN_PROTOCOL, [_relu_op(1)]),
        (STOCK_PROTOCOL, [Op("softmax", ((1, SMALL_ELEMENTS),), (True,))]),
        (STOCK_PROTOCOL, [_relu_op(large_size(shrink))]),
        (STOCK_PROTOCOL, [Op("matmul", ((m, k), (k, n)), (True, True)) for m, k, n in products]),
    ]


def large_size(shrink: int) -> int:
    """Elements of the large tensors."""
    return max(1, LARGE_ELEMENTS // shrink)


def _relu_op(elements: int) -> Op:
    return Op("relu", ((elements,),), (True,))


def time_passes(connection: socket.socket, rank: int, shrink: int, passes: int) -> Iterator[list[float]]:
    """Seconds of one exchange, of drawing a large random tensor, and of `kernels`: one pass after another."""
    probes = [(specs.load_executable_protocol(name), operations) for name, operations in timing_probes(shrink)]
    with (
        connected_party(connection, rank) as (link, source),
        Runtime.running(link, source, specs.load_executable_protocol(STOCK_PROTOCOL)) as rt,
    ):
        until = time.perf_counter() + BUDGET_S
        for done in range(passes):
            if done and not _either_party(link, rank == 0 and time.perf_counter() < until):
                break
            computing = [sum(_time_compute(rt, op, card) for op in operations) for card, operations in probes]
            yield [_time_exchange(link), _time_prg(large_size(shrink)), *computing]


def _either_party(link: Link, mine: bool) -> bool:
    """Whether either party wants to: both learn it."""
    return bool(link.all_reduce(torch.tensor([int(mine)])).item())


def _time_exchange(link: Link) -> float:
    """Seconds of one exchange of a message as small as can be."""
    word = torch.zeros(1, dtype=torch.long)
    return _elapsed_seconds(lambda: [link.all_reduce(word) for _ in range(EXCHANGES)]) / EXCHANGES


def _time_prg(elements: int) -> float:
    stream = AesCtrPrg(new_seed())
    return _elapsed_seconds(lambda: stream.draw(TensorSpec((elements,))))


def _time_compute(rt: Runtime, op: Op, card: specs.ExecutableProtocol) -> float:
    """Seconds of one operation without those that it communicates."""
    operands = [backend.fixed_point_tensor(torch.randint(2**20, shape)) for shape in op.shapes]
    before = float(rt.communicator.comm_time)
    seconds = _elapsed_seconds(lambda: apply_op(rt, op, operands, card))
    return seconds - (float(rt.communicator.comm_time) - before)


def _elapsed_seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def run_peer(port: int, shrink: int, passes: int) -> None:
    """The other party: it goes through all passes and tells nothing. It ends when the connection does."""
    try:
        for _ in time_passes(socket.create_connection(("127.0.0.1", port)), 1, shrink, passes):
            pass
    except RunError as error:
        sys.exit(str(error))


WORD = 8
PASSES = 16


def calibrate(
    progress: Callable[[float], None] = lambda fraction: None, shrink: int = 1, passes: int = PASSES
) -> Machine:
    """This machine's profile. A `shrink` above 1 divides what is measured: quicker, and less true.

    Of every probe the quickest pass counts, which nothing else disturbed. Raises `RunError` where the other party
    fails, and where other work on the machine drowned what was measured.
    """
    works = [
        Work(random=WORD * large_size(shrink), calls=1),
        *(_probe_work(name, operations) for name, operations in timing_probes(shrink)),
    ]
    seconds: list[list[float]] = []
    with peer_process(__name__, shrink, passes) as connection:
        for one in time_passes(connection, 0, shrink, passes):
            seconds.append(one)
            progress(len(seconds) / passes)
    progress(1.0)
    exchange, *quickest = np.min(seconds, axis=0).tolist()
    each = records.SecondsEach(rounds=exchange, **fit_unit_costs(works, quickest))
    return Machine(name=_machine_name(), source=f"pi-sim calibrate, {date.today()}", seconds_each=each)


def fit_unit_costs(works: list[Work], seconds: list[float]) -> dict[str, float]:
    """Seconds of each unit of work, from as many probes as there are units: what each took in all, and how long."""
    units = [field.name for field in fields(Work)]
    found = np.linalg.solve(np.array([astuple(work) for work in works], dtype=float), np.array(seconds))
    if (found <= 0).any():
        raise RunError("other work on this machine drowned what was measured; run pi-sim calibrate once more.")
    return dict(zip(units, found.tolist(), strict=True))


def _probe_work(protocol: str, operations: list[Op]) -> Work:
    card = specs.load_executable_protocol(protocol)
    return sum((found for op in operations if (found := op_work(op, card))), Work())


def load_warning() -> str | None:
    """A sentence for a machine that has something else to do; None for one that is free to be measured."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < cores / 2:
        return None
    return f"other work keeps this machine busy (load {load:.1f} on {cores} cores): it will seem slower than it is."


def _machine_name() -> str:
    """The processor, and how many of its cores there are."""
    return f"{records.cpu_name()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    run_peer(*map(int, sys.argv[1:]))
