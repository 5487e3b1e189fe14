"""Which dealer a party was told to take, and how it gets there."""

from dataclasses import dataclass
from pathlib import Path

from pi_sim.mpc.dealer import call, files
from pi_sim.mpc.dealer.kinds import FILE, FIRST, THIRD, Dealer, FirstParty
from pi_sim.mpc.dealer.terms import Terms


@dataclass(frozen=True)
class Choice:
    """A kind of dealer; a third party's port and token, or the path of what was dealt."""

    kind: str = FIRST
    port: int = 0
    token: str = ""
    path: str = ""

    @classmethod
    def parse(cls, name: str) -> "Choice":
        """As the command line says it: first-party, third-party, or a path."""
        return cls(name) if name in (FIRST, THIRD) else cls(FILE, path=name)

    def open(self, rank: int, terms: Terms, sequences: int, timeout: float) -> Dealer:
        """A party's way to this dealer, for so many sequences; an error in one sentence where it does not serve."""
        if self.kind == FILE:
            return files.hold(Path(self.path), rank, terms, sequences)
        if self.kind == THIRD:
            return call.call(self.port, bytes.fromhex(self.token), rank, terms, sequences, timeout)
        return FirstParty(rank)
