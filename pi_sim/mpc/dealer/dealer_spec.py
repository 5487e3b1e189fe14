"""Which dealer a party was told to take, and how it gets there."""

from dataclasses import dataclass
from pathlib import Path

from pi_sim.mpc.dealer import dealt_file, server
from pi_sim.mpc.dealer.dealers import DEALT_FILE, FIRST_PARTY, THIRD_PARTY, Dealer, FirstPartyDealer, RunIdentity


@dataclass(frozen=True)
class DealerSpec:
    """A kind of dealer; a third party's port and token, or the path of what was dealt."""

    kind: str = FIRST_PARTY
    port: int = 0
    token: str = ""
    path: str = ""

    @classmethod
    def parse(cls, name: str) -> "DealerSpec":
        """As the command line says it: first-party, third-party, or a path."""
        return cls(name) if name in (FIRST_PARTY, THIRD_PARTY) else cls(DEALT_FILE, path=name)

    def open(self, rank: int, terms: RunIdentity, sequences: int, timeout: float) -> Dealer:
        """A party's way to this dealer, for so many sequences; an error in one sentence where it does not serve."""
        if self.kind == DEALT_FILE:
            return dealt_file.open_dealt_file(Path(self.path), rank, terms, sequences)
        if self.kind == THIRD_PARTY:
            return server.request_seed(self.port, bytes.fromhex(self.token), rank, terms, sequences, timeout)
        return FirstPartyDealer(rank)
