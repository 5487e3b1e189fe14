"""The whole bench: what is to be measured, by which kernels, and all that was found."""

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pi_sim.cost.prices import Charge, charge
from pi_sim.mpc.pair import threads
from pi_sim.run.bench import models
from pi_sim.run.bench.found import Bench, Extent, Measured, Ran, Truncated
from pi_sim.run.bench.parties import Job, begun
from pi_sim.run.bench.truncations import steps
from pi_sim.run.bench.workloads import Workload, workloads
from pi_sim.run.two_party import executable
from pi_sim.specs import ProtocolCard

UNUSABLE = ("crypten",)
"""No model's protocol: its GELU is beyond use."""
Bar = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Shows the progress of a part of the work, by its title."""
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """One operation by one kernel: what it costs, and all protocols that compute it so."""

    workload: Workload
    card: ProtocolCard
    charge: Charge
    protocols: tuple[str, ...]

    @property
    def kernel(self) -> str:
        return self.card.kernels.get(self.workload.op.name, "fixed")

    def same(self, other: "Plan") -> bool:
        """Whether they compute the same by the same kernel at the same price: then one measurement serves both."""
        return (self.workload, self.kernel, self.charge) == (other.workload, other.kernel, other.charge)

    def found(self, **timings: float) -> Measured:
        """What is reported of it."""
        cost, workload = self.charge.cost, self.workload
        return Measured(
            name=workload.name, shapes=workload.shapes, kernel=self.kernel, protocols=self.protocols,
            elements=workload.elements(self.kernel), rounds=cost.rounds, bytes=cost.bytes, offline_bytes=cost.offline,
            session_bytes=self.charge.session, **timings,
        )  # fmt: skip


def bench(protocols: list[str], extent: Extent, bar: Bar) -> Bench:
    """Measure everything; a `RunError` where anything was counted that was not predicted."""
    before = os.getloadavg()[0]
    plans = planned(protocols, extent)
    operations, truncated = between_parties(plans, extent, bar)
    ran = whole_models([name for name in protocols if name not in UNUSABLE], extent, bar)
    return Bench(
        extent=extent,
        threads=threads(),
        load=(before, os.getloadavg()[0]),
        operations=operations,
        models=ran,
        truncations=truncated,
    )


def planned(protocols: list[str], extent: Extent) -> list[Plan]:
    """What is measured: every operation by every kernel that some protocol chooses for it."""
    cards = [executable(name) for name in protocols]
    plans: list[Plan] = []
    for workload in workloads(extent):
        for name, card in zip(protocols, cards, strict=True):
            plan = Plan(workload, card, charge(workload.op, card), (name,))
            known = next((number for number, each in enumerate(plans) if each.same(plan)), None)
            if known is None:
                plans.append(plan)
            else:
                plans[known] = replace(plans[known], protocols=(*plans[known].protocols, name))
    return plans


def between_parties(plans: list[Plan], extent: Extent, bar: Bar) -> tuple[tuple[Measured, ...], tuple[Truncated, ...]]:
    """Single operations, then truncations, between this process and another one."""
    run = [plan for plan in plans if plan.workload.run]
    job = Job(extent, [(plan.workload.name, plan.protocols[0]) for plan in run])
    with begun(job) as end:
        measured = job.operations(end, [plan.charge for plan in run])
        timings = iter(_all(measured, len(run), bar("operations")))
        counted = _all(job.truncations(end), steps(extent), bar("truncations"))
    found = [plan.found(**next(timings)) if plan.workload.run else plan.found() for plan in plans]
    return tuple(found), tuple({(each.protocol, each.bound): each for each in counted}.values())


def whole_models(protocols: list[str], extent: Extent, bar: Bar) -> tuple[Ran, ...]:
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
