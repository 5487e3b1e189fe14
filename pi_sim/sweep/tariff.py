"""A protocol's prices, each looked up once, and their sum over a census."""

from collections.abc import Iterable
from dataclasses import astuple
from operator import mul

from pi_sim.cost import protocols
from pi_sim.cost.census import Census
from pi_sim.cost.cost import Cost
from pi_sim.cost.prices import price_op
from pi_sim.cost.pricing import price_census
from pi_sim.cost.work import Work
from pi_sim.errors import UnpricedError, UsageError
from pi_sim.graph.ops import Op
from pi_sim.sweep.subject import CapturedScenario

Quantities = tuple[int, ...]
CachedPrice = tuple[Quantities, Quantities | None]
"""Rounds, bytes and offline bytes; and the work, if it is known."""


class PriceTable:
    """What a protocol charges for every operation that was asked about so far.

    Its sums are of integers, exact at any size: those of an estimate, without the estimate's rows.
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocols.resolve_protocol(protocol)
        self.name = self.protocol.name
        self.offline_known = protocols.is_offline_known(self.protocol)
        self._origin = protocols.protocol_origin(protocol)
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
