"""What is measured: every operation by every kernel that some protocol chooses for it, at its price."""

from dataclasses import dataclass, replace

from pi_sim.cost.prices import OpPrice, price_op
from pi_sim.records import BenchSize, KernelTiming
from pi_sim.run.bench.workloads import Workload, list_workloads
from pi_sim.run.executable import require_executable_protocol
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
        return self.card.kernels.get(self.workload.op.name, "fixed")

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


def bench_cases(protocols: list[str], extent: BenchSize) -> list[BenchCase]:
    """A plan for each, before anything is measured: a phantom prices them, which must not come between two parties."""
    cards = [require_executable_protocol(name) for name in protocols]
    plans: list[BenchCase] = []
    for workload in list_workloads(extent):
        for name, card in zip(protocols, cards, strict=True):
            plan = BenchCase(workload, card, price_op(workload.op, card), (name,))
            known = next((number for number, each in enumerate(plans) if each.matches(plan)), None)
            if known is None:
                plans.append(plan)
            else:
                plans[known] = replace(plans[known], protocols=(*plans[known].protocols, name))
    return plans
