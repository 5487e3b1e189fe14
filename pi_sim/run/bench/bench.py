"""The whole benchmark: single operations by every kernel that a protocol chooses, truncations, and whole models."""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pi_sim.cost.pricing import OpPrice, price_op
from pi_sim.mpc.kernels import kernel_for
from pi_sim.mpc.launch import threads_per_party
from pi_sim.records import BenchRecord, BenchSize, KernelTiming, ModelTiming, TruncationTest
from pi_sim.run.bench import models
from pi_sim.run.bench.kernels import BenchJob, batch_count, bench_peer, measure_truncations
from pi_sim.run.bench.workloads import Workload, list_workloads
from pi_sim.run.dealing import check_executable
from pi_sim.specs import ExecutableProtocol

QUICK = BenchSize(
    tokens=8, width=16, heads=2, vocabulary=32, large_vocabulary=64,
    repetitions=1, sequences=1, truncations=10**6, models=("relu_nonorm",),
)  # fmt: skip
"""Small sizes, for a run of seconds: counts are those of small shapes, and seconds mean little."""


@dataclass(frozen=True)
class BenchCase:
    """One operation by one kernel, its price, and the protocols that compute it so."""

    workload: Workload
    card: ExecutableProtocol
    price: OpPrice
    protocols: tuple[str, ...]

    @property
    def kernel(self) -> str:
        """Name of the kernel."""
        return kernel_for(self.workload.op.name, self.card.kernels, self.card.name).name

    def matches(self, other: "BenchCase") -> bool:
        """Return whether one measurement serves both: the same workload by the same kernel at the same price."""
        return (self.workload, self.kernel, self.price) == (other.workload, other.kernel, other.price)

    def timing(self, **timings: float) -> KernelTiming:
        """Return the record of the case, without seconds for a workload that is only priced."""
        cost, workload = self.price.cost, self.workload
        return KernelTiming(
            name=workload.name, shapes=workload.shapes, kernel=self.kernel, protocols=self.protocols,
            elements=workload.elements(self.kernel), rounds=cost.rounds, bytes=cost.bytes, offline_bytes=cost.offline,
            session_bytes=self.price.session_bytes, **timings,
        )  # fmt: skip


def bench_cases(protocols: list[ExecutableProtocol], extent: BenchSize) -> list[BenchCase]:
    """Return all cases with their prices, derived before any party runs: a dry run must not interrupt one."""
    for protocol in protocols:
        check_executable(protocol)
    cases: list[BenchCase] = []
    for workload in list_workloads(extent):
        for protocol in protocols:
            case = BenchCase(workload, protocol, price_op(workload.op, protocol), (protocol.name,))
            match = next((index for index, earlier in enumerate(cases) if earlier.matches(case)), None)
            if match is None:
                cases.append(case)
            else:
                cases[match] = replace(cases[match], protocols=(*cases[match].protocols, protocol.name))
    return cases


UNUSABLE_PROTOCOLS = ("crypten",)
"""Protocols without whole models: the GELU of stock CrypTen is unusable."""
ProgressBar = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Progress of a part of the work, by its title."""
T = TypeVar("T")


def run_bench(protocols: list[ExecutableProtocol], extent: BenchSize, bar: ProgressBar) -> BenchRecord:
    """Measure everything; raises a `RunError` where a counter differs from its prediction."""
    load_before = os.getloadavg()[0]
    operations, truncations = measure_kernels(bench_cases(protocols, extent), extent, bar)
    usable = [protocol for protocol in protocols if protocol.name not in UNUSABLE_PROTOCOLS]
    timings = measure_models(usable, extent, bar)
    return BenchRecord(
        extent=extent,
        threads=threads_per_party(),
        load=(load_before, os.getloadavg()[0]),
        operations=operations,
        models=timings,
        truncations=truncations,
    )


def measure_kernels(
    cases: list[BenchCase], extent: BenchSize, bar: ProgressBar
) -> tuple[tuple[KernelTiming, ...], tuple[TruncationTest, ...]]:
    """Measure single operations, then truncations, between this process and another one."""
    run = [case for case in cases if case.workload.is_run]
    job = BenchJob(extent=extent, tasks=[(case.workload.name, case.card) for case in run])
    with bench_peer(job) as party:
        operations = job.measure_operations(party, [case.price for case in run])
        timings = iter(_collect(operations, len(run), bar("operations")))
        tests = _collect(measure_truncations(party, extent), batch_count(extent), bar("truncations"))
    records = tuple(case.timing(**next(timings)) if case.workload.is_run else case.timing() for case in cases)
    return records, tuple({(test.protocol, test.bound): test for test in tests}.values())


def measure_models(protocols: list[ExecutableProtocol], extent: BenchSize, bar: ProgressBar) -> tuple[ModelTiming, ...]:
    """Measure whole models under every protocol with every dealer."""
    if not protocols:
        return ()
    number = (1 + len(extent.models)) * len(protocols) * len(models.DEALERS)
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        timings = (models.measure_model(model, protocols, Path(scratch)) for model in models.bench_models(extent))
        return tuple(_collect(chain.from_iterable(timings), number, bar("models")))


def _collect(results: Iterable[T], number: int, bar: AbstractContextManager[Callable[[float], None]]) -> list[T]:
    """Return all `number` results, with progress."""
    collected: list[T] = []
    with bar as advance:
        for result in results:
            collected.append(result)
            advance(len(collected) / number)
    return collected
