"""One party of a run, as a process of its own: `python -m pi_sim.mpc.party JOB.json`.

Of the bundle it opens the public files and the party's own shares. It meets the other party, checks that both hold the
same graph and protocol, evaluates the graph once per sequence, and writes what it counted; the client also writes the
logits that were opened to it. It ends when its standard input closes, so it cannot outlive whoever started it.
"""

import hashlib
import json
import os
import secrets
import socket
import struct
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pi_sim import __version__, specs
from pi_sim.errors import PiSimError, RunError
from pi_sim.graph import bundle
from pi_sim.graph.ops import Graph, Node
from pi_sim.mpc import backend, wire
from pi_sim.mpc.dealer.provider import FirstParty
from pi_sim.mpc.dealer.source import Source
from pi_sim.mpc.dealer.stream import SEED, Stream, seed
from pi_sim.mpc.executor import execute, open_weights
from pi_sim.mpc.kernels.reveal import CLIENT
from pi_sim.mpc.link import Link
from pi_sim.mpc.primitives.stationary import Weight
from pi_sim.network import Network
from pi_sim.specs import ProtocolCard

GREETING = struct.Struct(f"<32sq{SEED}s")


@dataclass(frozen=True)
class Job:
    """What one party is told. `listener` is the descriptor of a bound socket (party 0), `port` where to find it."""

    rank: int
    bundle: str
    tokens: str
    protocol: str
    result: str
    port: int
    listener: int | None
    timeout: float
    threads: int
    network: dict[str, Any] | None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def main(path: str) -> int:
    """Run the job; a failure is one sentence on standard error and the exit status."""
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _run(job)
    except PiSimError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _run(job: Job) -> None:
    torch.set_num_threads(job.threads)
    protocol = specs.protocol_card(job.protocol)
    opened = bundle.read(Path(job.bundle))
    shares = opened.shares(job.rank)
    connection = meet(job)
    source = greet(connection, job.rank, opened.digest() + protocol.model_dump_json().encode())
    link = Link(connection, job.rank, Network(**job.network) if job.network else None)
    dealer = FirstParty(source)
    with backend.use(link, dealer, protocol.settings), torch.no_grad():
        weights = {name: backend.shares(share) for name, share in shares.items()}
        party = Party(opened.graph, protocol, weights, link, dealer)
        session = party.open_weights()
        runs = [party.infer(tokens) for tokens in load_file(job.tokens)["tokens"]]
    link.close()
    if job.rank == CLIENT:
        save_file({"logits": torch.cat([logits for _, logits in runs])}, Path(job.result) / "logits.safetensors")
    counted = {"session": session, "sequences": [counts for counts, _ in runs]}
    (Path(job.result) / "counts.json").write_text(json.dumps(counted), encoding="utf-8")


class Party:
    """A party that holds its shares of the weights and evaluates the graph on one sequence after another."""

    def __init__(
        self, graph: Graph, protocol: ProtocolCard, weights: dict[str, Any], link: Link, dealer: FirstParty
    ) -> None:
        self.graph, self.protocol, self.weights, self.link, self.dealer = graph, protocol, weights, link, dealer
        self.opened: dict[str, Weight] = {}

    def open_weights(self) -> dict[str, Any]:
        """What was counted while the weights that stay put were opened under their masks, once for all sequences."""
        before = self.counters()
        self.opened = open_weights(self.graph, self.weights, self.protocol)
        return self._since(before)

    def infer(self, onehot: Tensor) -> tuple[dict[str, Any], Tensor]:
        """What was counted for one sequence, in all and up to each node, and its logits (at the client)."""
        before, nodes = self.counters(), []

        def note(node: Node) -> None:
            nodes.append((self.link.rounds - before["rounds"], self.link.sent - before["sent"]))
            print(json.dumps({"done": len(nodes), "of": len(self.graph.nodes)}), flush=True)

        values = {**self.weights, **self.graph.constants, "tokens": backend.shares(onehot, precision=0)}
        logits = execute(self.graph, values, self.protocol, self.opened, note)
        return {**self._since(before), "nodes": nodes}, logits

    def _since(self, before: dict[str, Any]) -> dict[str, Any]:
        return {name: count - before[name] for name, count in self.counters().items()}

    def counters(self) -> dict[str, Any]:
        """Every counter as it stands: the link's own, CrypTen's, the dealer's, and the clock."""
        return {
            "rounds": self.link.rounds,
            "sent": self.link.sent,
            "received": self.link.received,
            "crypten_rounds": self.link.comm_rounds,
            "crypten_bytes": self.link.comm_bytes,
            "offline": self.dealer.requested(),
            "communication_seconds": self.link.comm_time,
            "seconds": time.perf_counter(),
        }


def meet(job: Job) -> socket.socket:
    """Party 0 waits for the other on its listening socket, party 1 calls it; both wait `timeout` seconds at most."""
    try:
        if job.listener is None:
            return socket.create_connection(("127.0.0.1", job.port), timeout=job.timeout)
        with socket.socket(fileno=job.listener) as listener:
            listener.settimeout(job.timeout)
            connection = listener.accept()[0]
            connection.settimeout(job.timeout)
            return connection
    except OSError:
        raise RunError(f"the other party could not be reached within {job.timeout:g} seconds.") from None


def greet(connection: socket.socket, rank: int, agreement: bytes) -> Source:
    """Exchange digests of what must agree, and seeds: of CrypTen's sharings of zero, and of the dealer's streams.

    Party 0 stands in for the dealer, so it learns the seed that party 1 expands its shares from.
    """
    digest = hashlib.sha256(__version__.encode() + agreement).digest()
    zeros, stream = secrets.randbits(63), seed()
    wire.send(connection, GREETING.pack(digest, zeros, stream if rank == 1 else bytes(SEED)))
    theirs, previous, other = GREETING.unpack(wire.receive(connection, bytearray(GREETING.size)))
    if theirs != digest:
        raise RunError("the parties hold different graphs, protocols or versions; give both the same export.")
    backend.seed_generators(previous=previous, following=zeros, local=secrets.randbits(63))
    return Source(Stream(stream), Stream(other) if rank == 0 else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
