"""The sweep itself: the census of each question, its price under each protocol, its seconds on each network."""

# MERGED: What a sweep asks: every combination of its axes, in a fixed order.
# MERGED: The operations of one question, captured or read the first time that somebody asks.
# MERGED: A protocol's prices, each looked up once, and their sum over a census.

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import product
from operator import mul
from typing import NamedTuple

from pi_sim import specs
from pi_sim.cost import pricing
from pi_sim.cost.census import Census, scenario_census
from pi_sim.cost.cost import Cost, Work
from pi_sim.cost.machine import Machine
from pi_sim.cost.pricing import price_census, price_op
from pi_sim.errors import MissingDependencyError, UnpricedError, UsageError
from pi_sim.graph.ops import Op
from pi_sim.network import Network
from pi_sim.sweep.table import EMPTY_RESULT, ResumableCsv, ScenarioKey, SweepRow
from pi_sim.zoo import source
from pi_sim.zoo.source import model_context, size_label


class Scenario(NamedTuple):
    """A model at a size that reads `seq_len` tokens of each sequence at once, `past` more being in a KV cache."""

    model: str
    size: str
    seq_len: int
    batch: int
    past: int | None
    only_inner: bool


@dataclass(frozen=True)
class Grid:
    """Models, sizes, lengths, batches and KV caches, each named once or more; no length is each model's context.

    Lengths and caches are different questions: a prefill for each length, a decode step for each cache.
    """

    models: tuple[str, ...]
    sizes: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1,)
    pasts: tuple[int, ...] = ()
    inner: bool = False

    def scenarios(self) -> list[Scenario]:
        """Each once: a model with a config has one size, its own."""
        return list(dict.fromkeys(self._scenarios()))

    def _scenarios(self) -> Iterator[Scenario]:
        for model, size in product(self.models, self.sizes):
            check_model_and_size(model, size)
            for (length, past), batch in product(self._token_counts(model, size), self.batches):
                yield Scenario(model, size_label(model, size), length, batch, past, self.inner)

    def _token_counts(self, model: str, size: str) -> Iterator[tuple[int, int | None]]:
        """(tokens that are read at once, tokens in a cache) of every prefill and every step."""
        if not self.pasts and not self.lengths:
            yield model_context(model, size), None
        yield from ((length, None) for length in self.lengths)
        yield from ((1, past) for past in self.pasts)


def check_model_and_size(model: str, size: str) -> None:
    """A `UsageError` for a model or a size that does not exist, before anything is priced."""
    if source.config_text(model) is None:
        specs.load_model_card(model)
        specs.load_size(size)


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


Quantities = tuple[int, ...]
CachedPrice = tuple[Quantities, Quantities | None]
"""Rounds, bytes and offline bytes; and the work, if it is known."""


class PriceTable:
    """What a protocol charges for every operation that was asked about so far.

    Its sums are of integers, exact at any size: those of an estimate, without the estimate's rows.
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = pricing.resolve_protocol(protocol)
        self.name = self.protocol.name
        self.offline_known = pricing.is_offline_known(self.protocol)
        self._origin = pricing.protocol_origin(protocol)
        self._prices: dict[Op, CachedPrice | None] = {}

    def total(self, subject: CapturedScenario) -> tuple[Cost, Work | None]:
        """What all operations cost, and what computing them takes if the protocol tells that of each.

        A `UsageError` is the estimate's own: it names the operation, its module and the protocol's file.
        """
        counts = subject.counts
        prices = [known for op in counts if (known := self._price(op))]
        if len(prices) < len(counts):
            self._raise_unpriced(subject.census)
        works = [found for _, found in prices if found is not None]
        done = Work(*_weighted_sums(counts, works)) if len(works) == len(prices) else None
        return Cost(*_weighted_sums(counts, [cost for cost, _ in prices])), done

    def _price(self, op: Op) -> CachedPrice | None:
        """An operation's price, or None where it has none."""
        if op not in self._prices:
            try:
                price = price_op(op, self.protocol)
                found = price.compute_work()
                self._prices[op] = astuple(price.cost), None if found is None else astuple(found)
            except UnpricedError:
                self._prices[op] = None
        return self._prices[op]

    def _raise_unpriced(self, census: Census) -> None:
        """Raise the estimate's sentence on what has no price."""
        lacking = {key: count for key, count in census.counts.items() if self._prices[key[1]] is None}
        price_census(Census(lacking, census.embedding_and_head), self.protocol, self._origin)


def load_price_tables(protocols: Iterable[str]) -> list[PriceTable]:
    """One for each protocol; a `UsageError` where two of them have one name, by which a table tells them apart."""
    found = [PriceTable(each) for each in dict.fromkeys(protocols)]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two protocols are both called {name}; change the name in one of their files.")
    return found


def _weighted_sums(counts: dict[Op, int], prices: list[Quantities]) -> list[int]:
    """Counts times prices, for each of the quantities that a price has."""
    return [sum(map(mul, counts.values(), column)) for column in zip(*prices, strict=True)]


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

    def _price_scenario(
        self, subject: CapturedScenario, tariff: PriceTable, asked: dict[ScenarioKey, Network]
    ) -> Iterator[SweepRow]:
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
