"""The numbers that are told of each part of an estimate: one column each."""

from collections.abc import Callable
from dataclasses import dataclass

from pi_sim.cost.estimate import Estimate
from pi_sim.cost.rows import Part
from pi_sim.reporting.tables import Column
from pi_sim.reporting.units import BYTES, COUNT, SECONDS, SHARE


@dataclass(frozen=True)
class Measure:
    """A column, and how its number is read off; None where it is not known."""

    column: Column
    read: Callable[[Estimate, Part], float | None]


ROUNDS = Measure(Column("rounds", "rounds", COUNT), lambda estimate, part: part.cost.rounds)
SENT = Measure(Column("bytes", "sent", BYTES), lambda estimate, part: part.cost.bytes)
OFFLINE = Measure(
    Column("offline_bytes", "offline", BYTES),
    lambda estimate, part: part.cost.offline if estimate.offline_known else None,
)
COMPUTING = Measure(Column("compute_seconds", "computing", SECONDS), lambda estimate, part: estimate.computing(part))


def share(measure: Measure) -> Measure:
    """What part of the whole estimate's number it is."""

    def read(estimate: Estimate, part: Part) -> float | None:
        whole, some = measure.read(estimate, estimate.whole), measure.read(estimate, part)
        return None if whole is None or some is None else some / (whole or 1)

    return Measure(Column(f"share_of_{measure.column.key}", measure.column.title, SHARE), read)


def seconds(estimates: list[Estimate]) -> list[Measure]:
    """Seconds on each network; the column says so where they are not those of computing too."""
    known = all(each.computing(each.whole) is not None for each in estimates)
    return [
        _on(network.name, network.name if known else f"{network.name}\nnetwork\nonly")
        for network in estimates[0].networks
    ]


def _on(network: str, title: str) -> Measure:
    return Measure(Column(f"seconds_{network}", title, SECONDS), lambda estimate, part: estimate.seconds(part)[network])
