"""A machine's profile, measured by two parties on this machine."""

import os
from collections.abc import Callable
from dataclasses import astuple, fields
from datetime import date

import numpy as np

from pi_sim import records, specs
from pi_sim.cost.machine import Machine
from pi_sim.cost.prices import work
from pi_sim.cost.work import Work
from pi_sim.errors import RunError
from pi_sim.graph.ops import Op
from pi_sim.run import probes
from pi_sim.run.partner import partner
from pi_sim.run.probes import kernels, many, timings

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
        Work(random=WORD * many(shrink), calls=1),
        *(_work(name, operations) for name, operations in kernels(shrink)),
    ]
    seconds: list[list[float]] = []
    with partner(probes.__name__, shrink, passes) as connection:
        for one in timings(connection, 0, shrink, passes):
            seconds.append(one)
            progress(len(seconds) / passes)
    progress(1.0)
    exchange, *quickest = np.min(seconds, axis=0).tolist()
    each = records.SecondsEach(rounds=exchange, **learned(works, quickest))
    return Machine(name=_name(), source=f"pi-sim calibrate, {date.today()}", seconds_each=each)


def learned(works: list[Work], seconds: list[float]) -> dict[str, float]:
    """Seconds of each unit of work, from as many probes as there are units: what each took in all, and how long."""
    units = [field.name for field in fields(Work)]
    found = np.linalg.solve(np.array([astuple(work) for work in works], dtype=float), np.array(seconds))
    if (found <= 0).any():
        raise RunError("other work on this machine drowned what was measured; run pi-sim calibrate once more.")
    return dict(zip(units, found.tolist(), strict=True))


def _work(protocol: str, operations: list[Op]) -> Work:
    card = specs.protocol_card(protocol)
    return sum((found for op in operations if (found := work(op, card))), Work())


def busy() -> str | None:
    """A sentence for a machine that has something else to do; None for one that is free to be measured."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < cores / 2:
        return None
    return f"other work keeps this machine busy (load {load:.1f} on {cores} cores): it will seem slower than it is."


def _name() -> str:
    """The processor, and how many of its cores there are."""
    return f"{records.cpu_name()}, {os.cpu_count()} cores"
