"""The dealer as one party sees it: a dealing number that both parties compare, then a source of shares.

    first-party     party 0 is the dealer and learns the seed that party 1 expands: it could open everything
    third-party     another process, to which both parties connect; it learns nothing about their computation
    file            randomness that such a dealer wrote beforehand, see `dealt_file`

Randomness that was dealt for another graph or protocol would not fit, so everybody compares a `RunIdentity`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from pi_sim import __version__
from pi_sim.errors import UsageError
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
    """Number of the export: both parties' shares must be of one export, whereas a dealing serves every export."""

    @classmethod
    def of_run(cls, bundle: Bundle, protocol: ExecutableProtocol) -> "RunIdentity":
        """Return the identity of a run of this bundle under this protocol."""
        protocol_digest = hashlib.sha256(protocol.model_dump_json().encode()).hexdigest()
        return cls(bundle.digest().hex(), protocol_digest, export=bundle.export_number())

    def digest(self) -> bytes:
        """Return 32 bytes for the dealer to compare: graph, protocol and version."""
        return hashlib.sha256("\n".join((self.graph, self.protocol, self.version)).encode()).digest()

    def agreement_terms(self, sequences: int) -> dict[str, str]:
        """Return the values that two parties compare before they start, by their names in messages."""
        return {
            "version": self.version,
            "graph": self.graph,
            "export": self.export,
            "protocol": self.protocol,
            "number of sequences": str(sequences),
        }


FIRST_PARTY, THIRD_PARTY, DEALT_FILE = "first-party", "third-party", "file"
DEALING_NUMBER_BYTES = 16
"""Bytes of the random number of a dealing, by which shares of different dealings are told apart."""


@dataclass(frozen=True)
class DealerSpec:
    """A kind of dealer, with the port and token of a third party, or the path of dealt files."""

    kind: str = FIRST_PARTY
    port: int = 0
    token: str = ""
    path: str = ""

    def __post_init__(self) -> None:
        if self.kind not in (FIRST_PARTY, THIRD_PARTY, DEALT_FILE):
            raise UsageError(f"unknown kind of dealer {self.kind!r}; use {FIRST_PARTY}, {THIRD_PARTY} or {DEALT_FILE}.")

    @classmethod
    def parse(cls, name: str) -> "DealerSpec":
        """Return the dealer that a user named: first-party, third-party, or a path."""
        return cls(name) if name in (FIRST_PARTY, THIRD_PARTY) else cls(DEALT_FILE, path=name)


class Dealer(ABC):
    """A party's access to a dealer before it meets the other party. `number` must be the same at both."""

    kind: str
    number: bytes

    @abstractmethod
    def seed_offer(self) -> bytes:
        """Return the bytes that the other party may know: a seed, or zeros."""

    @abstractmethod
    def open_source(self, peer_offer: bytes) -> Source:
        """Return this party's source, given the other party's offer. Called once."""


class FirstPartyDealer(Dealer):
    """Party 0 as the dealer."""

    kind, number = FIRST_PARTY, bytes(DEALING_NUMBER_BYTES)

    def __init__(self, rank: int) -> None:
        self.rank, self.seed = rank, new_seed()

    def seed_offer(self) -> bytes:
        """Return party 1's seed; zeros at party 0."""
        return self.seed if self.rank == 1 else bytes(SEED_BYTES)

    def open_source(self, peer_offer: bytes) -> Source:
        own_prg = AesCtrPrg(self.seed)
        return DealerSource(own_prg, AesCtrPrg(peer_offer)) if self.rank == 0 else SeedSource(own_prg)


@dataclass(frozen=True)
class ExternalDealer(Dealer):
    """A dealer that is neither party: it gave a seed to each, and party 0 a stream of its dependent shares.

    `mark_used` is called before the first share is drawn. Party 1 takes nothing from its stream.
    """

    kind: str
    rank: int
    number: bytes
    seed: bytes
    share_stream: ShareStream
    mark_used: Callable[[], None] = lambda: None

    def seed_offer(self) -> bytes:
        """Return zeros: nobody else may expand the seed."""
        return bytes(SEED_BYTES)

    def open_source(self, peer_offer: bytes) -> Source:
        self.mark_used()
        own_prg = AesCtrPrg(self.seed)
        return StreamedSource(own_prg, self.share_stream) if self.rank == 0 else SeedSource(own_prg)
