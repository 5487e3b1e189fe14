"""One party's end of a bench: both go through the same steps at once, over a real connection."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.cost.cost import Cost
from pi_sim.errors import RunError
from pi_sim.mpc import backend, session
from pi_sim.mpc.dealer.provider import Provider
from pi_sim.mpc.dealer.source import Source
from pi_sim.mpc.link import Link
from pi_sim.specs import ExecutableProtocol


@dataclass(frozen=True)
class BenchParty:
    """A party's link and its source of randomness, party 0 being in the dealer's place."""

    link: Link
    source: Source

    @contextmanager
    def protocol_context(self, card: ExecutableProtocol, source: Source | None = None) -> Iterator[None]:
        """Kernels that are called inside run as a protocol says, with randomness from `source`."""
        with backend.crypten_context(self.link, Provider(source or self.source), card.settings), torch.no_grad():
            yield

    def share_of(self, ring: Tensor, mask: Tensor) -> Tensor:
        """This party's share of values that both know, as the same mask hides them at both."""
        return mask if self.link.rank else ring - mask

    def reveal(self, share: Tensor) -> Tensor:
        """The value of which each party holds a share."""
        found: Tensor = self.link.all_reduce(share)
        return found

    def time_both(self, run: Callable[[], object]) -> float:
        """Seconds from when both parties begin until both are done."""
        self._synchronise()
        started = time.perf_counter()
        run()
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        self.link.all_reduce(torch.zeros(1, dtype=torch.long))

    def count_both(self, source: Source, run: Callable[[], object]) -> Tensor:
        """What both parties count while they run it, by several counters: a row (7) for each, the same at both."""
        before = self._read_counters(source)
        run()
        mine = self._read_counters(source) - before
        rows = torch.zeros(2, len(mine), dtype=torch.long)
        rows[self.link.rank] = mine
        return self.reveal(rows)

    def _read_counters(self, source: Source) -> Tensor:
        link = self.link
        ours = link.rounds, link.sent, link.received
        return torch.tensor([*ours, link.comm_rounds, link.comm_bytes, source.offline_bytes, session.requested_bytes()])


def check_counters(what: str, predicted: Cost, counted: Tensor) -> None:
    """Refuse counts that differ from the price, or from one another: the link's, CrypTen's and the dealer's."""
    rows = counted.tolist()
    for mine, theirs in zip(rows, reversed(rows), strict=True):
        rounds, sent, received, crypten_rounds, crypten_bytes, offline, asked = mine
        found = Cost(rounds, max(sent, theirs[1]), offline)
        if found != predicted:
            raise RunError(f"{what}: predicted were {_describe_cost(predicted)}; counted were {_describe_cost(found)}.")
        if (crypten_rounds, crypten_bytes, asked) != (rounds, sent + received, offline) or received != theirs[1]:
            raise RunError(f"{what}: the counters of the link, of CrypTen and of the dealer disagree: {rows}.")


def _describe_cost(cost: Cost) -> str:
    return f"{cost.rounds} rounds, {cost.bytes} bytes and {cost.offline} bytes offline"
