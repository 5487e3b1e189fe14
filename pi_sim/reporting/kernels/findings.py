"""What the page on kernels is made from: a bench, and the runs that tell how exact private results are."""

from dataclasses import dataclass
from pathlib import Path

from pi_sim import records
from pi_sim.records import BenchRecord, KernelTiming, ModelTiming, RunRecord
from pi_sim.reporting.recorded import Run

STOCK, STOCK_MODELS, OURS = "crypten", "crypten_tanh", "lean"
"""What is set beside what: stock CrypTen, of whose GELUs only the one by tanh can serve a model, and our protocol."""


@dataclass(frozen=True)
class Kernels:
    """A bench, and runs under our protocol by model."""

    bench: BenchRecord
    runs: dict[str, Run]

    @property
    def operations(self) -> dict[str, dict[str, KernelTiming]]:
        """By operation, what was measured of it by protocol."""
        found: dict[str, dict[str, KernelTiming]] = {}
        for each in self.bench.operations:
            found.setdefault(each.name, {}).update(dict.fromkeys(each.protocols, each))
        return found

    @property
    def pairs(self) -> list[tuple[KernelTiming, KernelTiming]]:
        """Every operation by stock CrypTen's kernel and by ours, where both were asked for."""
        both = {STOCK, OURS}
        return [(by[STOCK], by[OURS]) for by in self.operations.values() if both <= by.keys()]

    def stock(self, ran: ModelTiming) -> ModelTiming | None:
        """The run of the same model with the same dealer under stock CrypTen."""
        same = (ran.model, ran.dealer, STOCK_MODELS)
        return next((each for each in self.bench.models if (each.model, each.dealer, each.protocol) == same), None)


def gather(sources: list[Path]) -> Kernels | None:
    """The bench recorded in these folders, the last one where there are several; None where there is none."""
    bench, runs = None, dict[str, Run]()
    for path in (path for source in sources for path in sorted(source.glob("*.json"))):
        record = records.load(path)
        if isinstance(record, BenchRecord):
            bench = record
        elif isinstance(record, RunRecord) and record.protocol == OURS and record.agreement:
            runs[record.model] = Run(path, record.model_dump())
    return Kernels(bench, runs) if bench else None
