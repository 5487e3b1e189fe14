"""The whole bench: single operations, truncations and whole models, one after another."""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pi_sim.mpc.pair import threads
from pi_sim.records import BenchRecord, BenchSize, KernelTiming, ModelTiming, TruncationTest
from pi_sim.run.bench import models
from pi_sim.run.bench.parties import Job, begun
from pi_sim.run.bench.plan import Plan, planned
from pi_sim.run.bench.truncations import steps

UNUSABLE = ("crypten",)
"""No model's protocol: its GELU is beyond use."""
Bar = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Shows the progress of a part of the work, by its title."""
T = TypeVar("T")


def bench(protocols: list[str], extent: BenchSize, bar: Bar) -> BenchRecord:
    """Measure everything; a `RunError` where anything was counted that was not predicted."""
    before = os.getloadavg()[0]
    plans = planned(protocols, extent)
    operations, truncated = between_parties(plans, extent, bar)
    ran = whole_models([name for name in protocols if name not in UNUSABLE], extent, bar)
    return BenchRecord(
        extent=extent,
        threads=threads(),
        load=(before, os.getloadavg()[0]),
        operations=operations,
        models=ran,
        truncations=truncated,
    )


def between_parties(
    plans: list[Plan], extent: BenchSize, bar: Bar
) -> tuple[tuple[KernelTiming, ...], tuple[TruncationTest, ...]]:
    """Single operations, then truncations, between this process and another one."""
    run = [plan for plan in plans if plan.workload.is_run]
    job = Job(extent, [(plan.workload.name, plan.protocols[0]) for plan in run])
    with begun(job) as end:
        measured = job.measure_operations(end, [plan.price for plan in run])
        timings = iter(_all(measured, len(run), bar("operations")))
        counted = _all(job.measure_truncations(end), steps(extent), bar("truncations"))
    found = [plan.timing(**next(timings)) if plan.workload.is_run else plan.timing() for plan in plans]
    return tuple(found), tuple({(each.protocol, each.bound): each for each in counted}.values())


def whole_models(protocols: list[str], extent: BenchSize, bar: Bar) -> tuple[ModelTiming, ...]:
    """Models under every protocol with every dealer."""
    if not protocols:
        return ()
    number = (1 + len(extent.models)) * len(protocols) * len(models.DEALERS)
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        found = (models.measure(subject, protocols, Path(scratch)) for subject in models.subjects(extent))
        return tuple(_all(chain.from_iterable(found), number, bar("models")))


def _all(each: Iterable[T], number: int, bar: AbstractContextManager[Callable[[float], None]]) -> list[T]:
    """All of so many, with progress."""
    found: list[T] = []
    with bar as advance:
        for one in each:
            found.append(one)
            advance(len(found) / number)
    return found
