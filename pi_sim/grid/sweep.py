"""Sweep: every combination of models, lengths, protocols and networks, priced.

The census of a scenario is captured once for all protocols; a protocol prices each operation once for all scenarios.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from itertools import product
from operator import mul

from pi_sim.cost import pricing
from pi_sim.cost.census import Census, scenario_census
from pi_sim.cost.cost import ZERO_COST, Cost, Machine, Work
from pi_sim.cost.pricing import PricedProtocol, price_census, price_op
from pi_sim.errors import MissingDependencyError, UnpricedError, UsageError
from pi_sim.graph.ops import Op
from pi_sim.grid.table import EMPTY_RESULT, ResumableCsv, ScenarioKey, SweepRow
from pi_sim.network import Network
from pi_sim.specs import ExecutableProtocol
from pi_sim.zoo.source import ModelSource


@dataclass(frozen=True)
class Scenario:
    """One inference: a model reads `seq_len` tokens of each sequence at once, after `past` tokens in a KV cache."""

    source: ModelSource
    seq_len: int
    batch: int = 1
    past: int | None = None
    only_inner: bool = False

    @property
    def key(self) -> ScenarioKey:
        """The first columns of its rows."""
        return (self.source.name, self.source.label, self.seq_len, self.batch, self.past, self.only_inner)


def list_scenarios(
    sources: Sequence[ModelSource],
    *,
    lengths: Sequence[int] = (),
    batches: Sequence[int] = (1,),
    pasts: Sequence[int] = (),
    inner: bool = False,
) -> list[Scenario]:
    """Return the scenarios of a sweep in a fixed order, each once: a model with a config has one size, its own.

    A prefill for each length, a decode step for each KV cache; without either, a prefill of its default length.
    """
    steps: list[tuple[int, int | None]] = [*((length, None) for length in lengths), *((1, past) for past in pasts)]
    scenarios = (
        Scenario(source, length, batch, past, inner)
        for source in sources
        for (length, past), batch in product(steps or [(source.default_length, None)], batches)
    )
    return list({scenario.key: scenario for scenario in scenarios}.values())


@dataclass(frozen=True)
class CapturedScenario:
    """A scenario with its census under a protocol; its `UsageError` is raised at every access."""

    scenario: Scenario
    protocol: ExecutableProtocol | None = None
    """The protocol, if it rewrites the graph; None for all others, which share a census."""

    @property
    def census(self) -> Census:
        """Operations by module."""
        if isinstance(self._census_or_error, UsageError):
            raise self._census_or_error
        return self._census_or_error

    @cached_property
    def counts(self) -> dict[Op, int]:
        """Operations of all modules together: prices do not depend on the module."""
        totals: Counter[Op] = Counter()
        for (_, op), count in self.census.counts.items():
            totals[op] += count
        return totals

    @cached_property
    def _census_or_error(self) -> Census | UsageError:
        scenario = self.scenario
        length = scenario.seq_len if scenario.past is None else None
        try:
            return scenario_census(
                scenario.source, length, scenario.batch, scenario.past, scenario.only_inner, self.protocol
            )[1]
        except UsageError as error:
            return error


Quantities = tuple[int, ...]
CachedPrice = tuple[Quantities, Quantities | None]
"""Numbers of the cost; and those of the work and of the work ahead of the input, or None if they are unknown."""


class PriceTable:
    """Prices of a protocol, each looked up once.

    Sums are of integers, exact at any size: those of an estimate, without the estimate's rows.
    """

    def __init__(self, protocol: PricedProtocol) -> None:
        self.protocol = protocol
        self.name = protocol.name
        executable = pricing.executable_or_none(protocol)
        self.rewriter = executable if executable and executable.rewrites else None
        self.offline_known = pricing.is_offline_known(protocol)
        self._prices: dict[Op, CachedPrice | None] = {}

    def total(self, captured: CapturedScenario) -> tuple[Cost, tuple[Work, Work] | None]:
        """Return the cost of all operations, and their work and that ahead of the input, unless one is unknown.

        Raises the `UsageError` of the estimate, which names the operation, its module and the protocol's file.
        """
        counts = captured.counts
        prices = [price for op in counts if (price := self._price(op))]
        if len(prices) < len(counts):
            self._raise_unpriced(captured.census)
        works = [work for _, work in prices if work is not None]
        total_work = _split_work(_weighted_sums(counts, works)) if len(works) == len(prices) else None
        total_cost = Cost.from_numbers(_weighted_sums(counts, [cost for cost, _ in prices])) if prices else ZERO_COST
        return total_cost, total_work

    def _price(self, op: Op) -> CachedPrice | None:
        """Return the price of an operation, or None if it has none."""
        if op not in self._prices:
            try:
                price = price_op(op, self.protocol)
                work, ahead = price.compute_work(), price.ahead_work
                amounts = None if work is None or ahead is None else (*astuple(work), *astuple(ahead))
                self._prices[op] = price.cost.numbers, amounts
            except UnpricedError:
                self._prices[op] = None
        return self._prices[op]

    def _raise_unpriced(self, census: Census) -> None:
        """Raise the estimate's error about the operations without a price."""
        lacking = {key: count for key, count in census.counts.items() if self._prices[key[1]] is None}
        price_census(replace(census, counts=lacking), self.protocol)


def make_price_tables(protocols: Iterable[PricedProtocol]) -> list[PriceTable]:
    """Return a table for each protocol; a `UsageError` if two have one name, because rows hold only the name."""
    tables = [PriceTable(protocol) for protocol in protocols]
    names = [table.name for table in tables]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two protocols are both called {name}; change the name in one of their files.")
    return tables


def _weighted_sums(counts: dict[Op, int], prices: list[Quantities]) -> list[int]:
    """Return the sums of counts times prices, one for each quantity of a price."""
    return [sum(map(mul, counts.values(), column)) for column in zip(*prices, strict=True)]


def _split_work(amounts: list[int]) -> tuple[Work, Work]:
    """Return the work, and the work ahead of the input, of the numbers of both."""
    half = len(amounts) // 2
    return Work(*amounts[:half]), Work(*amounts[half:])


@dataclass(frozen=True)
class Sweep:
    """Scenarios, each under every protocol and on every network."""

    scenarios: list[Scenario]
    price_tables: list[PriceTable]
    networks: list[Network]
    machine: Machine | None = None
    perplexities: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Perplexities of trained models, by model and size."""

    def limit_perplexity(self, limit: float) -> "Sweep":
        """Return the sweep of the designs of at most a perplexity; a `UsageError` if there are none."""
        known = {scenario.key[:2]: self.perplexities.get(scenario.key[:2], math.inf) for scenario in self.scenarios}
        chosen = [scenario for scenario in self.scenarios if known[scenario.key[:2]] <= limit]
        if chosen:
            return replace(self, scenarios=chosen)
        least = min(known.values())
        reason = "no perplexity is known" if math.isinf(least) else f"the lowest is {least:.2f}"
        raise UsageError(f"no design has a perplexity of at most {limit:g}, {reason}; allow a larger --max-perplexity.")

    def run(self, table: ResumableCsv, advance: Callable[[float], None]) -> list[SweepRow]:
        """Return all rows; those that the table lacks are added to it, one scenario under one protocol at a time.

        A scenario without a price has a row too, with the reason.
        """
        rows: list[SweepRow] = []
        for number, scenario in enumerate(self.scenarios):
            captured = CapturedScenario(scenario)
            for done, prices in enumerate(self.price_tables, start=1):
                own = CapturedScenario(scenario, prices.rewriter) if prices.rewriter else captured
                rows += self._scenario_rows(own, prices, table)
                advance((number + done / len(self.price_tables)) / len(self.scenarios))
        return rows

    def _scenario_rows(self, captured: CapturedScenario, prices: PriceTable, table: ResumableCsv) -> list[SweepRow]:
        """Return a row for each network, priced only if the table lacks it."""
        machine = pricing.machine_of(prices.protocol, self.machine)
        identity = (*captured.scenario.key, prices.name, machine.name if machine else None)
        keys = {(*identity, network.name): network for network in self.networks}
        missing = {key: network for key, network in keys.items() if key not in table.rows}
        if missing:
            table.add(list(self._price_scenario(captured, prices, missing)))
        return [table.rows[key] for key in keys]

    def _price_scenario(
        self, captured: CapturedScenario, prices: PriceTable, missing: dict[ScenarioKey, Network]
    ) -> Iterator[SweepRow]:
        """Price a scenario once, and yield its row for each network."""
        source = captured.scenario.source
        perplexity = self.perplexities.get((source.name, source.label))
        try:
            cost, works = prices.total(captured)
        except MissingDependencyError:
            raise
        except UsageError as error:
            reason = " ".join(str(error).split())
            yield from (SweepRow._make((*key, *EMPTY_RESULT, perplexity, reason)) for key in missing)
            return
        machine = pricing.machine_of(prices.protocol, self.machine)
        computing = (
            (machine.seconds(works[0], cost.rounds), machine.seconds(works[1], 0)) if works and machine else None
        )
        offline = cost.offline if prices.offline_known else None
        numbers = cost.rounds, cost.bytes, *cost.sent, cost.ahead_bytes, cost.session_bytes, offline
        for key, network in missing.items():
            steady = network.seconds(cost.rounds, cost.serial)
            first = steady + cost.seconds_before(network)
            times = (computing[0], steady + computing[0], first + sum(computing)) if computing else (None,) * 3
            yield SweepRow._make((*key, *numbers, steady, first, *times, perplexity, None))
