"""How parties and a third-party dealer meet: each party calls, says who it is, and is told its seed.

The dealer then streams party 0's shares over party 0's connection; party 1's stays idle. Both stay open until the run
is over.
"""

# MERGED: A third-party dealer, as a process of its own: `python -m pi_sim.mpc.dealer.server JOB.json`. It reads the public part of the bundle alone, draws a seed for each party, and sends party 0 its shares while the parties run. It ends when both parties have gone, or when its standard input closes.  # noqa: E501

import secrets
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pi_sim import specs
from pi_sim.errors import RunError
from pi_sim.graph import bundle
from pi_sim.mpc import dry_run, worker
from pi_sim.mpc.dealer.dealers import DEALING_NUMBER_BYTES, THIRD_PARTY, ExternalDealer, RunIdentity
from pi_sim.mpc.dealer.prg import SEED_BYTES, AesCtrPrg, new_seed
from pi_sim.mpc.dealer.sources import DealerSource, Demand, raw_bytes
from pi_sim.mpc.transport import wire

TOKEN_BYTES = 16
"""Bytes that only processes of this run know: nobody else is told a seed."""
HELLO_TIMEOUT_S = 5.0
"""Seconds that a caller has to say hello."""
HELLO = struct.Struct(f"<{TOKEN_BYTES}sBQ32s")
WELCOME = struct.Struct(f"<{DEALING_NUMBER_BYTES}s{SEED_BYTES}s")


class StreamedShares:
    """Party 0's derived shares, as the dealer sends them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def take(self, length: int) -> Tensor:
        memory = torch.empty(length, dtype=torch.uint8)
        with _name_dealer_in_errors():
            wire.receive_exactly(self.connection, memory.numpy().data)
        return memory


def request_seed(
    port: int, token: bytes, rank: int, terms: RunIdentity, sequences: int, timeout: float
) -> ExternalDealer:
    """A party's way to a dealer on this machine; a `RunError` where it does not answer."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    except OSError:
        raise RunError(f"the dealer could not be reached within {timeout:g} seconds.") from None
    with _name_dealer_in_errors():
        wire.send_all(connection, HELLO.pack(token, rank, sequences, terms.digest()))
        number, seed = WELCOME.unpack(wire.receive_exactly(connection, bytearray(WELCOME.size)))
    return ExternalDealer(THIRD_PARTY, rank, number, seed, StreamedShares(connection))


def accept_parties(
    listener: socket.socket, token: bytes, terms: RunIdentity, sequences: int, timeout: float
) -> tuple[socket.socket, socket.socket]:
    """The dealer's connections to both parties; strangers are hung up on, a party with other terms is a `RunError`."""
    callers: dict[int, socket.socket] = {}
    until = time.monotonic() + timeout
    while set(callers) != {0, 1}:
        connection = _accept_connection(listener, until)
        known, rank, wanted, digest = _read_hello(connection)
        if known != token:
            connection.close()
        elif (wanted, digest) != (sequences, terms.digest()):
            raise RunError(f"party {rank} holds another graph, protocol, version or number of sequences.")
        else:
            callers[rank] = connection
    return callers[0], callers[1]


def _accept_connection(listener: socket.socket, until: float) -> socket.socket:
    try:
        listener.settimeout(max(0.001, until - time.monotonic()))
        connection = listener.accept()[0]
    except OSError:
        raise RunError("the parties did not call in time.") from None
    connection.settimeout(HELLO_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _read_hello(connection: socket.socket) -> tuple[bytes, int, int, bytes]:
    """What a caller says; nothing that anybody would say where it hangs up or is silent."""
    with suppress(RunError):
        known, rank, wanted, digest = HELLO.unpack(wire.receive_exactly(connection, bytearray(HELLO.size)))
        return known, rank, wanted, digest
    return b"", 0, 0, b""


@contextmanager
def _name_dealer_in_errors() -> Iterator[None]:
    try:
        yield
    except RunError as error:
        raise RunError(str(error).replace("the other party", "the dealer")) from None


@dataclass(frozen=True)
class DealerJob:
    """What the dealer is told. `listener` is the descriptor of a bound socket."""

    bundle: str
    protocol: str
    sequences: int
    token: str
    listener: int
    timeout: float
    threads: int


def serve_parties(job: DealerJob) -> None:
    """Find out what will be needed, answer both parties, then deal."""
    torch.set_num_threads(job.threads)
    opened, protocol = bundle.read_bundle(Path(job.bundle)), specs.load_executable_protocol(job.protocol)
    tape = dry_run.record_demand(opened.graph, protocol)
    with socket.socket(fileno=job.listener) as listener:
        parties = accept_parties(
            listener, bytes.fromhex(job.token), RunIdentity.of_run(opened, protocol), job.sequences, job.timeout
        )
    seeds, number = (new_seed(), new_seed()), secrets.token_bytes(DEALING_NUMBER_BYTES)
    for party, each in zip(parties, seeds, strict=True):
        wire.send_all(party, WELCOME.pack(number, each))
    with suppress(RunError):  # a party that goes ends the dealing, and says itself why it went
        _stream_shares(tape, DealerSource(*map(AesCtrPrg, seeds)), job.sequences, parties)


def _stream_shares(
    tape: Demand, source: DealerSource, sequences: int, parties: tuple[socket.socket, socket.socket]
) -> None:
    """Send party 0's shares as fast as it takes them, then wait until both parties have hung up."""
    for party in parties:
        party.settimeout(None)
    for shares in tape.replay(source, sequences):
        for share in shares:
            wire.send_all(parties[0], raw_bytes(share))
    for party in parties:
        wire.receive_exactly(party, bytearray(1))


if __name__ == "__main__":
    sys.exit(worker.run_job(serve_parties, DealerJob, sys.argv[1]))
