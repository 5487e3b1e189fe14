"""What a dealing is for. Randomness that was dealt for something else would not fit, so everybody compares these."""

# MERGED: A party's way to its dealer: what it compares with the other party when they meet, and then its source. first-party party 0 plays the dealer and learns the seed that party 1 expands: it could open everything third-party another process, which both parties call; it learns nothing of what they compute file what such a dealer wrote beforehand, see `files`  # noqa: E501

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from pi_sim import __version__
from pi_sim.graph.bundle import Bundle
from pi_sim.mpc.dealer.prg import SEED_BYTES, AesCtrPrg, new_seed
from pi_sim.mpc.dealer.sources import DealerSource, SeedSource, ShareStream, Source, StreamedSource
from pi_sim.specs import ExecutableProtocol


@dataclass(frozen=True)
class RunIdentity:
    """Digests of the public part of a bundle and of a protocol, in hexadecimal digits, and the version of pi-sim."""

    graph: str
    protocol: str
    version: str = __version__
    export: str = ""
    """The export's number: both parties' shares must be of one, whereas a dealing serves every export of a graph."""

    @classmethod
    def of_run(cls, opened: Bundle, protocol: ExecutableProtocol) -> "RunIdentity":
        """Those of a run."""
        chosen = hashlib.sha256(protocol.model_dump_json().encode()).hexdigest()
        return cls(opened.digest().hex(), chosen, export=opened.export_number())

    def digest(self) -> bytes:
        """What a dealer must know, in 32 bytes."""
        return hashlib.sha256("\n".join((self.graph, self.protocol, self.version)).encode()).digest()

    def agreement_terms(self, sequences: int) -> dict[str, str]:
        """What two parties compare before they start, by the names that a user knows."""
        return {
            "version": self.version,
            "graph": self.graph,
            "export": self.export,
            "protocol": self.protocol,
            "number of sequences": str(sequences),
        }


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
        self,
        kind: str,
        rank: int,
        number: bytes,
        seed: bytes,
        supply: ShareStream,
        use: Callable[[], None] = lambda: None,
    ) -> None:
        """`use` is called before the first share is drawn. Party 1 takes nothing out of its supply."""
        self.kind, self.rank, self.number, self.seed, self.share_stream, self.mark_used = (
            kind,
            rank,
            number,
            seed,
            supply,
            use,
        )

    def seed_offer(self) -> bytes:
        """Nothing: nobody else may expand the seed."""
        return bytes(SEED_BYTES)

    def open_source(self, theirs: bytes) -> Source:
        self.mark_used()
        mine = AesCtrPrg(self.seed)
        return StreamedSource(mine, self.share_stream) if self.rank == 0 else SeedSource(mine)
