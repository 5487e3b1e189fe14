"""A party's way to its dealer: what it compares with the other party when they meet, and then its source.

first-party    party 0 plays the dealer and learns the seed that party 1 expands: it could open everything
third-party    another process, which both parties call; it learns nothing of what they compute
file           what such a dealer wrote beforehand, see `files`
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from pi_sim.mpc.dealer.source import DealerSource, SeedSource, ShareStream, Source, StreamedSource
from pi_sim.mpc.dealer.stream import SEED_BYTES, AesCtrPrg, new_seed

FIRST_PARTY, THIRD_PARTY, DEALT_FILE = "first-party", "third-party", "file"
DEALING_NUMBER_BYTES = 16
"""Bytes of a dealing's number, which tells the shares of one dealing from those of another."""


class Dealer(ABC):
    """What both parties hold before they meet. `number` must be the same at both."""

    kind: str
    number: bytes

    @abstractmethod
    def seed_offer(self) -> bytes:
        """What the other party may know: a seed, or zeros."""

    @abstractmethod
    def open_source(self, theirs: bytes) -> Source:
        """This party's source, once it knows the other party's offer. Called once."""


class FirstPartyDealer(Dealer):
    """Party 0 plays the dealer."""

    kind, number = FIRST_PARTY, bytes(DEALING_NUMBER_BYTES)

    def __init__(self, rank: int) -> None:
        self.rank, self.seed = rank, new_seed()

    def seed_offer(self) -> bytes:
        """Party 1's seed."""
        return self.seed if self.rank == 1 else bytes(SEED_BYTES)

    def open_source(self, theirs: bytes) -> Source:
        mine = AesCtrPrg(self.seed)
        return DealerSource(mine, AesCtrPrg(theirs)) if self.rank == 0 else SeedSource(mine)


class ExternalDealer(Dealer):
    """A dealer that is neither party gave a seed to each, and party 0 a supply of its derived shares."""

    def __init__(
        self, kind: str, rank: int, number: bytes, seed: bytes, supply: ShareStream, use: Callable[[], None] = lambda: None
    ) -> None:
        """`use` is called before the first share is drawn. Party 1 takes nothing out of its supply."""
        self.kind, self.rank, self.number, self.seed, self.share_stream, self.mark_used = kind, rank, number, seed, supply, use

    def seed_offer(self) -> bytes:
        """Nothing: nobody else may expand the seed."""
        return bytes(SEED_BYTES)

    def open_source(self, theirs: bytes) -> Source:
        self.mark_used()
        mine = AesCtrPrg(self.seed)
        return StreamedSource(mine, self.share_stream) if self.rank == 0 else SeedSource(mine)
