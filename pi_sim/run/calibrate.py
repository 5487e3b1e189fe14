"""A machine's profile, measured by two parties on this machine."""

import os
from collections.abc import Callable
from dataclasses import astuple, fields
from datetime import date

import numpy as np

from pi_sim import records, specs
from pi_sim.cost.machine import Machine
from pi_sim.cost.prices import op_work
from pi_sim.cost.work import Work
from pi_sim.errors import RunError
from pi_sim.graph.ops import Op
from pi_sim.run import probes
from pi_sim.run.partner import peer_process
from pi_sim.run.probes import large_size, time_passes, timing_probes

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
    with peer_process(probes.__name__, shrink, passes) as connection:
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
