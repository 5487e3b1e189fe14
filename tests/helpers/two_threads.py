"""Two parties in two threads, for primitives that work on bare shares: values and counts, without processes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc import session
from pi_sim.mpc.dealer.source import Dealing, Expanding
from pi_sim.mpc.dealer.stream import Stream
from pi_sim.mpc.link import Link


@dataclass
class Exchange:
    """Where both threads lay down what they open."""

    barrier: threading.Barrier
    laid: list[list[Tensor]]


class Communicator:
    """One party's end; counts what CrypTen's would."""

    def __init__(self, rank: int, exchange: Exchange) -> None:
        self.rank, self.exchange = rank, exchange
        self.rounds = self.bytes = 0

    def get_rank(self) -> int:
        return self.rank

    def all_reduce(self, shares: Any, op: Any = None, batched: bool = False) -> Any:
        mine = shares if batched else [shares]
        self.rounds += 1
        self.bytes += sum(share.nbytes for share in mine)
        self.exchange.laid[self.rank] = mine
        self.exchange.barrier.wait(60)
        pairs = list(zip(mine, self.exchange.laid[1 - self.rank], strict=True))
        self.exchange.barrier.wait(60)
        opened = [one + other if op is None else one ^ other for one, other in pairs]
        return opened if batched else opened[0]


@dataclass(frozen=True)
class Outcome:
    """Both parties' results, and what party 0 counted."""

    shares: tuple[Tensor, Tensor]
    rounds: int
    bytes: int
    offline: int

    @property
    def value(self) -> Tensor:
        return self.shares[0] + self.shares[1]


def run_both(function: Callable[..., Tensor], *plain: Tensor) -> Outcome:
    """Call the function with each party's shares of the plain ring elements."""
    exchange = Exchange(threading.Barrier(2), [[], []])
    ends = [Communicator(rank, exchange) for rank in (0, 1)]
    sources = [Dealing(Stream(bytes(16)), Stream(bytes([1] * 16))), Expanding(Stream(bytes([1] * 16)))]
    masks = [torch.randint(-(2**63), 2**63 - 1, each.shape) for each in plain]
    operands = [masks, [each - mask for each, mask in zip(plain, masks, strict=True)]]
    results: list[Any] = [None, None]

    def play(rank: int) -> None:
        try:
            with session.run(ends[rank], sources[rank]):
                results[rank] = function(*operands[rank])
        except Exception as error:
            results[rank] = error
            exchange.barrier.abort()

    threads = [threading.Thread(target=play, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return Outcome((results[0], results[1]), ends[0].rounds, ends[0].bytes, sources[0].offline)


def at_both_ends(ends: list[Link], play: Callable[[Link], object]) -> list[object]:
    """What `play` returns for both ends, at the same time."""
    results: list[object] = [None, None]

    def one(rank: int) -> None:
        results[rank] = play(ends[rank])

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results
