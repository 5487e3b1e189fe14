"""The whole bench: single operations, truncations and whole models, one after another."""

# MERGED: What is measured: every operation by every kernel that some protocol chooses for it, at its price.

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pi_sim.cost.pricing import OpPrice, price_op
from pi_sim.mpc.kernels.registry import UNIVERSAL
from pi_sim.mpc.launch import threads_per_party
from pi_sim.records import BenchRecord, BenchSize, KernelTiming, ModelTiming, TruncationTest
from pi_sim.run.bench import models
from pi_sim.run.bench.kernels import BenchJob, batch_count, bench_peer
from pi_sim.run.bench.workloads import Workload, list_workloads
from pi_sim.run.dealing import check_executable
from pi_sim.specs import ExecutableProtocol

QUICK = BenchSize(
    tokens=8, width=16, heads=2, vocabulary=32, large_vocabulary=64,
    repetitions=1, sequences=1, truncations=10**6, models=("relu_nonorm",),
)  # fmt: skip
"""The same code within seconds: its counts are those of small shapes, its seconds mean little."""


@dataclass(frozen=True)
class BenchCase:
    """One operation by one kernel: what it costs, and all protocols that compute it so."""

    workload: Workload
    card: ExecutableProtocol
    price: OpPrice
    protocols: tuple[str, ...]

    @property
    def kernel(self) -> str:
        return self.card.kernels.get(self.workload.op.name, UNIVERSAL)

    def matches(self, other: "BenchCase") -> bool:
        """Whether they compute the same by the same kernel at the same price: then one measurement serves both."""
        return (self.workload, self.kernel, self.price) == (other.workload, other.kernel, other.price)

    def timing(self, **timings: float) -> KernelTiming:
        """What is reported of it."""
        cost, workload = self.price.cost, self.workload
        return KernelTiming(
            name=workload.name, shapes=workload.shapes, kernel=self.kernel, protocols=self.protocols,
            elements=workload.elements(self.kernel), rounds=cost.rounds, bytes=cost.bytes, offline_bytes=cost.offline,
            session_bytes=self.price.session_bytes, **timings,
        )  # fmt: skip


def bench_cases(protocols: list[ExecutableProtocol], extent: BenchSize) -> list[BenchCase]:
    """A plan for each, before anything is measured: a phantom prices them, which must not come between two parties."""
    for protocol in protocols:
        check_executable(protocol)
    plans: list[BenchCase] = []
    for workload in list_workloads(extent):
        for protocol in protocols:
            plan = BenchCase(workload, protocol, price_op(workload.op, protocol), (protocol.name,))
            known = next((number for number, each in enumerate(plans) if each.matches(plan)), None)
            if known is None:
                plans.append(plan)
            else:
                plans[known] = replace(plans[known], protocols=(*plans[known].protocols, protocol.name))
    return plans


UNUSABLE_PROTOCOLS = ("crypten",)
"""No model's protocol: its GELU is beyond use."""
ProgressBar = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Shows the progress of a part of the work, by its title."""
T = TypeVar("T")


def run_bench(protocols: list[ExecutableProtocol], extent: BenchSize, bar: ProgressBar) -> BenchRecord:
    """Measure everything; a `RunError` where anything was counted that was not predicted."""
    before = os.getloadavg()[0]
    plans = bench_cases(protocols, extent)
    operations, truncated = measure_kernels(plans, extent, bar)
    ran = measure_models([each for each in protocols if each.name not in UNUSABLE_PROTOCOLS], extent, bar)
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
    job = BenchJob(extent=extent, tasks=[(plan.workload.name, plan.card) for plan in run])
    with bench_peer(job) as end:
        measured = job.measure_operations(end, [plan.price for plan in run])
        timings = iter(_collect(measured, len(run), bar("operations")))
        counted = _collect(job.measure_truncations(end), batch_count(extent), bar("truncations"))
    found = [plan.timing(**next(timings)) if plan.workload.is_run else plan.timing() for plan in plans]
    return tuple(found), tuple({(each.protocol, each.bound): each for each in counted}.values())


def measure_models(protocols: list[ExecutableProtocol], extent: BenchSize, bar: ProgressBar) -> tuple[ModelTiming, ...]:
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
