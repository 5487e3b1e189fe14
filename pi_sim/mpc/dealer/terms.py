"""What a dealing is for. Randomness that was dealt for something else would not fit, so everybody compares these."""

import hashlib
from dataclasses import dataclass

from pi_sim import __version__
from pi_sim.graph.bundle import Bundle
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
