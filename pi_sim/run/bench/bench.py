"""The whole bench: single operations, truncations and whole models, one after another."""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pi_sim.mpc.pair import threads_per_party
from pi_sim.records import BenchRecord, BenchSize, KernelTiming, ModelTiming, TruncationTest
from pi_sim.run.bench import models
from pi_sim.run.bench.parties import BenchJob, bench_peer
from pi_sim.run.bench.plan import BenchCase, bench_cases
from pi_sim.run.bench.truncations import batch_count

UNUSABLE_PROTOCOLS = ("crypten",)
"""No model's protocol: its GELU is beyond use."""
ProgressBar = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Shows the progress of a part of the work, by its title."""
T = TypeVar("T")


def run_bench(protocols: list[str], extent: BenchSize, bar: ProgressBar) -> BenchRecord:
    """Measure everything; a `RunError` where anything was counted that was not predicted."""
    before = os.getloadavg()[0]
    plans = bench_cases(protocols, extent)
    operations, truncated = measure_kernels(plans, extent, bar)
    ran = measure_models([name for name in protocols if name not in UNUSABLE_PROTOCOLS], extent, bar)
    return BenchRecord(
        extent=extent,
        threads=threads_per_party(),
        load=(before, os.getloadavg()[0]),
        operations=operations,
        models=ran,
        truncations=truncated,
    )


def measure_kernels(
    plans: list[BenchCase], extent: BenchSize, bar: ProgressBar
) -> tuple[tuple[KernelTiming, ...], tuple[TruncationTest, ...]]:
    """Single operations, then truncations, between this process and another one."""
    run = [plan for plan in plans if plan.workload.is_run]
    job = BenchJob(extent, [(plan.workload.name, plan.protocols[0]) for plan in run])
    with bench_peer(job) as end:
        measured = job.measure_operations(end, [plan.price for plan in run])
        timings = iter(_collect(measured, len(run), bar("operations")))
        counted = _collect(job.measure_truncations(end), batch_count(extent), bar("truncations"))
    found = [plan.timing(**next(timings)) if plan.workload.is_run else plan.timing() for plan in plans]
    return tuple(found), tuple({(each.protocol, each.bound): each for each in counted}.values())


def measure_models(protocols: list[str], extent: BenchSize, bar: ProgressBar) -> tuple[ModelTiming, ...]:
    """Models under every protocol with every dealer."""
    if not protocols:
        return ()
    number = (1 + len(extent.models)) * len(protocols) * len(models.DEALERS)
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        found = (models.measure_model(subject, protocols, Path(scratch)) for subject in models.bench_models(extent))
        return tuple(_collect(chain.from_iterable(found), number, bar("models")))


def _collect(each: Iterable[T], number: int, bar: AbstractContextManager[Callable[[float], None]]) -> list[T]:
    """All of so many, with progress."""
    found: list[T] = []
    with bar as advance:
        for one in each:
            found.append(one)
            advance(len(found) / number)
    return found
