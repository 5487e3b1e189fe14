"""The sweep itself: the census of each question, its price under each protocol, its seconds on each network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pi_sim.cost.cost import Cost
from pi_sim.cost.machine import Machine
from pi_sim.cost.work import Work
from pi_sim.errors import MissingError, UsageError
from pi_sim.network import Network
from pi_sim.sweep.answers import NO_PRICE, Answer, Key
from pi_sim.sweep.grid import Question
from pi_sim.sweep.kept import Table
from pi_sim.sweep.subject import Subject
from pi_sim.sweep.tariff import Tariff


@dataclass(frozen=True)
class Sweep:
    """Questions, asked of every protocol on every network."""

    scenarios: list[Question]
    price_tables: list[Tariff]
    networks: list[Network]
    machine: Machine | None = None

    def run(self, table: Table, advance: Callable[[float], None]) -> list[Answer]:
        """All answers. Those that the table lacks are added to it, one question under one protocol at a time.

        What has no price is answered too, with the reason.
        """
        found: list[Answer] = []
        for asked, question in enumerate(self.scenarios):
            subject = Subject(question)
            for done, tariff in enumerate(self.price_tables, start=1):
                found += self._scenario_rows(subject, tariff, table)
                advance((asked + done / len(self.price_tables)) / len(self.scenarios))
        return found

    def _scenario_rows(self, subject: Subject, tariff: Tariff, table: Table) -> list[Answer]:
        """One for each network, from the table as far as it has them."""
        keys = {self._scenario_key(subject, tariff, network): network for network in self.networks}
        missing = {key: network for key, network in keys.items() if key not in table.rows}
        if missing:
            table.add(list(self._price_scenario(subject, tariff, missing)))
        return [table.rows[key] for key in keys]

    def _scenario_key(self, subject: Subject, tariff: Tariff, network: Network) -> Key:
        machine = self.machine.name if self.machine else None
        return (*subject.scenario, tariff.name, machine, network.name)

    def _price_scenario(self, subject: Subject, tariff: Tariff, asked: dict[Key, Network]) -> Iterator[Answer]:
        """The price once, and the seconds that it makes on each network."""
        try:
            cost, work = tariff.total(subject)
        except MissingError:
            raise
        except UsageError as error:
            reason = " ".join(str(error).split())
            yield from (Answer._make((*key, *NO_PRICE, reason)) for key in asked)
            return
        computing = self._compute_seconds(cost, work)
        offline = cost.offline if tariff.offline_known else None
        for key, network in asked.items():
            seconds = network.seconds(cost.rounds, cost.bytes) + (computing or 0.0)
            yield Answer._make((*key, cost.rounds, cost.bytes, offline, computing, seconds, None))

    def _compute_seconds(self, cost: Cost, work: Work | None) -> float | None:
        return None if self.machine is None or work is None else self.machine.seconds(work, cost.rounds)
