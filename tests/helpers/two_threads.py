"""Two parties in two threads, for primitives that work on bare shares: values and counts, without processes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc.dealer.prg import AesCtrPrg
from pi_sim.mpc.dealer.sources import DealerSource, SeedSource
from pi_sim.mpc.runtime import Runtime
from pi_sim.mpc.transport.link import Link


@dataclass
class Exchange:
    """The messages of both threads, and the barrier at which they exchange them."""

    barrier: threading.Barrier
    messages: list[list[Tensor]]


class Communicator:
    """One party's communicator; counts rounds and bytes as CrypTen's does."""

    def __init__(self, rank: int, exchange: Exchange) -> None:
        self.rank, self.exchange = rank, exchange
        self.rounds = self.bytes = 0

    def get_rank(self) -> int:
        return self.rank

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Exchange a tensor; return party 0's and party 1's."""
        (peer,) = self._exchange([tensor], sends=True)
        return [tensor, peer] if self.rank == 0 else [peer, tensor]

    def gather(self, tensors: list[Tensor], dst: int, batched: bool = True) -> list[Tensor] | None:
        """Send tensors to party `dst` alone."""
        messages = self._exchange(tensors, sends=self.rank != dst)
        return messages if self.rank == dst else None

    def _exchange(self, messages: list[Tensor], sends: bool) -> list[Tensor]:
        """Return the other party's messages; count own ones if this party sends."""
        self.rounds += 1
        self.bytes += sum(share.nbytes for share in messages) if sends else 0
        self.exchange.messages[self.rank] = messages
        self.exchange.barrier.wait(60)
        peer_messages = self.exchange.messages[1 - self.rank]
        self.exchange.barrier.wait(60)
        return peer_messages

    def all_reduce(self, shares: Any, op: Any = None, batched: bool = False) -> Any:
        """Open shares to both parties."""
        messages = shares if batched else [shares]
        pairs = list(zip(messages, self._exchange(messages, sends=True), strict=True))
        values = [own + peer if op is None else own ^ peer for own, peer in pairs]
        return values if batched else values[0]


@dataclass(frozen=True)
class Outcome:
    """Both parties' shares of the result, and the counters of party 0."""

    shares: tuple[Tensor, Tensor]
    rounds: int
    bytes: int
    offline: int

    @property
    def value(self) -> Tensor:
        return self.shares[0] + self.shares[1]


def run_both(function: Callable[..., Tensor], *plain: Tensor) -> Outcome:
    """Call the function with each party's runtime and shares of the plain ring elements."""
    exchange = Exchange(threading.Barrier(2), [[], []])
    ends = [Communicator(rank, exchange) for rank in (0, 1)]
    sources = [DealerSource(AesCtrPrg(bytes(16)), AesCtrPrg(bytes([1] * 16))), SeedSource(AesCtrPrg(bytes([1] * 16)))]
    masks = [torch.randint(-(2**63), 2**63 - 1, operand.shape) for operand in plain]
    operands = [masks, [operand - mask for operand, mask in zip(plain, masks, strict=True)]]
    results: list[Any] = [None, None]

    def run(rank: int) -> None:
        try:
            results[rank] = function(Runtime(ends[rank], sources[rank]), *operands[rank])
        except Exception as error:
            results[rank] = error
            exchange.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return Outcome((results[0], results[1]), ends[0].rounds, ends[0].bytes, sources[0].offline_bytes)


def at_both_ends(ends: list[Link], function: Callable[[Link], object]) -> list[object]:
    """Return what the function returns for each end; both run at the same time."""
    results: list[object] = [None, None]

    def run(rank: int) -> None:
        results[rank] = function(ends[rank])

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results
