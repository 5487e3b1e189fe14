"""The sweep itself: the census of each question, its price under each protocol, its seconds on each network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pi_sim.cost.cost import Cost
from pi_sim.cost.machine import Machine
from pi_sim.cost.work import Work
from pi_sim.errors import MissingDependencyError, UsageError
from pi_sim.network import Network
from pi_sim.sweep.answers import EMPTY_RESULT, ScenarioKey, SweepRow
from pi_sim.sweep.grid import Scenario
from pi_sim.sweep.kept import ResumableCsv
from pi_sim.sweep.subject import CapturedScenario
from pi_sim.sweep.tariff import PriceTable


@dataclass(frozen=True)
class Sweep:
    """Questions, asked of every protocol on every network."""

    scenarios: list[Scenario]
    price_tables: list[PriceTable]
    networks: list[Network]
    machine: Machine | None = None

    def run(self, table: ResumableCsv, advance: Callable[[float], None]) -> list[SweepRow]:
        """All answers. Those that the table lacks are added to it, one question under one protocol at a time.

        What has no price is answered too, with the reason.
        """
        found: list[SweepRow] = []
        for asked, question in enumerate(self.scenarios):
            subject = CapturedScenario(question)
            for done, tariff in enumerate(self.price_tables, start=1):
                found += self._scenario_rows(subject, tariff, table)
                advance((asked + done / len(self.price_tables)) / len(self.scenarios))
        return found

    def _scenario_rows(self, subject: CapturedScenario, tariff: PriceTable, table: ResumableCsv) -> list[SweepRow]:
        """One for each network, from the table as far as it has them."""
        keys = {self._scenario_key(subject, tariff, network): network for network in self.networks}
        missing = {key: network for key, network in keys.items() if key not in table.rows}
        if missing:
            table.add(list(self._price_scenario(subject, tariff, missing)))
        return [table.rows[key] for key in keys]

    def _scenario_key(self, subject: CapturedScenario, tariff: PriceTable, network: Network) -> ScenarioKey:
        machine = self.machine.name if self.machine else None
        return (*subject.scenario, tariff.name, machine, network.name)

    def _price_scenario(self, subject: CapturedScenario, tariff: PriceTable, asked: dict[ScenarioKey, Network]) -> Iterator[SweepRow]:
        """The price once, and the seconds that it makes on each network."""
        try:
            cost, work = tariff.total(subject)
        except MissingDependencyError:
            raise
        except UsageError as error:
            reason = " ".join(str(error).split())
            yield from (SweepRow._make((*key, *EMPTY_RESULT, reason)) for key in asked)
            return
        computing = self._compute_seconds(cost, work)
        offline = cost.offline if tariff.offline_known else None
        for key, network in asked.items():
            seconds = network.seconds(cost.rounds, cost.bytes) + (computing or 0.0)
            yield SweepRow._make((*key, cost.rounds, cost.bytes, offline, computing, seconds, None))

    def _compute_seconds(self, cost: Cost, work: Work | None) -> float | None:
        return None if self.machine is None or work is None else self.machine.seconds(work, cost.rounds)
