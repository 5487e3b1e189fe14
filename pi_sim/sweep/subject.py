"""The operations of one question, captured or read the first time that somebody asks."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from pi_sim.cost.census import Census
from pi_sim.cost.estimate import scenario_census
from pi_sim.errors import UsageError
from pi_sim.graph.ops import Op
from pi_sim.sweep.grid import Scenario


@dataclass(frozen=True)
class CapturedScenario:
    """A question with its census, for all protocols; a `UsageError` is kept too, and raised each time."""

    scenario: Scenario

    @property
    def census(self) -> Census:
        """The operations by module."""
        if isinstance(self._census_or_error, UsageError):
            raise self._census_or_error
        return self._census_or_error

    @cached_property
    def counts(self) -> dict[Op, int]:
        """The operations, wherever they are: prices do not depend on the module."""
        found: Counter[Op] = Counter()
        for (_, op), count in self.census.counts.items():
            found[op] += count
        return found

    @cached_property
    def _census_or_error(self) -> Census | UsageError:
        asked = self.scenario
        length = asked.seq_len if asked.past is None else None
        try:
            return scenario_census(asked.model, asked.size, length, asked.batch, asked.past, asked.only_inner)[1]
        except UsageError as error:
            return error
