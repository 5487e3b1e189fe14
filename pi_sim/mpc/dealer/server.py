"""A third-party dealer as a process of its own: `python -m pi_sim.mpc.dealer.server`, with a job on standard input.

It reads the public part of the bundle only. Each party connects, identifies itself and receives its seed. The dealer
then streams party 0's dependent shares over party 0's connection while the parties run; party 1's connection stays
idle. It ends when both parties have hung up.
"""

import secrets
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from pi_sim.errors import RunError
from pi_sim.graph import bundle
from pi_sim.mpc import executor, worker
from pi_sim.mpc.dealer.dealers import DEALING_NUMBER_BYTES, THIRD_PARTY, ExternalDealer, RunIdentity
from pi_sim.mpc.dealer.prg import SEED_BYTES, AesCtrPrg, new_seed
from pi_sim.mpc.dealer.sources import DealerSource, raw_bytes
from pi_sim.mpc.transport.connection import receive_exactly, send_all
from pi_sim.specs import ExecutableProtocol

TOKEN_BYTES = 16
"""Bytes of a token that only the processes of a run know; a caller without it receives no seed."""
HELLO_TIMEOUT_S = 5.0
HELLO = struct.Struct(f"<{TOKEN_BYTES}sBQ32s")
"""Token, rank, number of sequences, and digest of the run's identity."""
WELCOME = struct.Struct(f"<{DEALING_NUMBER_BYTES}s{SEED_BYTES}s")
"""Number of the dealing, and the party's seed."""


class StreamedShares:
    """Party 0's dependent shares, as the dealer sends them."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def take(self, length: int) -> Tensor:
        memory = torch.empty(length, dtype=torch.uint8)
        with _name_dealer_in_errors():
            receive_exactly(self.connection, memory.numpy().data)
        return memory


def request_seed(
    port: int, token: bytes, rank: int, identity: RunIdentity, sequences: int, timeout: float
) -> ExternalDealer:
    """Connect to the dealer on this machine and request a party's seed; a `RunError` if it does not answer."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    except OSError:
        raise RunError(f"the dealer could not be reached within {timeout:g} seconds.") from None
    with _name_dealer_in_errors():
        send_all(connection, HELLO.pack(token, rank, sequences, identity.digest()))
        number, seed = WELCOME.unpack(receive_exactly(connection, bytearray(WELCOME.size)))
    return ExternalDealer(THIRD_PARTY, rank, number, seed, StreamedShares(connection))


def accept_parties(
    listener: socket.socket, token: bytes, identity: RunIdentity, sequences: int, timeout: float
) -> tuple[socket.socket, socket.socket]:
    """Return the dealer's connections to both parties.

    Unauthenticated callers are hung up on; a party of another run is a `RunError`.
    """
    callers: dict[int, socket.socket] = {}
    deadline = time.monotonic() + timeout
    while set(callers) != {0, 1}:
        connection = _accept_connection(listener, deadline)
        caller_token, rank, caller_sequences, digest = _read_hello(connection)
        if not secrets.compare_digest(caller_token, token):
            connection.close()
        elif (caller_sequences, digest) != (sequences, identity.digest()):
            raise RunError(f"party {rank} holds another graph, protocol, version or number of sequences.")
        else:
            callers[rank] = connection
    return callers[0], callers[1]


def _accept_connection(listener: socket.socket, deadline: float) -> socket.socket:
    try:
        listener.settimeout(max(0.001, deadline - time.monotonic()))
        connection = listener.accept()[0]
    except OSError:
        raise RunError("the parties did not connect in time.") from None
    connection.settimeout(HELLO_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _read_hello(connection: socket.socket) -> tuple[bytes, int, int, bytes]:
    """Return token, rank, number of sequences and digest; an empty token if the caller hangs up or is silent."""
    with suppress(RunError):
        token, rank, sequences, digest = HELLO.unpack(receive_exactly(connection, bytearray(HELLO.size)))
        return token, rank, sequences, digest
    return b"", 0, 0, b""


@contextmanager
def _name_dealer_in_errors() -> Iterator[None]:
    try:
        yield
    except RunError as error:
        raise RunError(str(error).replace("the other party", "the dealer")) from None


class DealerJob(worker.Job):
    """Parameters of the dealer: public ones, and the token of the run."""

    listener: int
    bundle: Path
    protocol: ExecutableProtocol
    sequences: int
    token: str
    timeout: float
    threads: int


def serve_parties(job: DealerJob) -> None:
    """Record the demand of the graph, send both parties their seeds, then deal.

    Party 0's shares are sent as fast as it reads them; the dealer then waits until both parties have hung up.
    """
    torch.set_num_threads(job.threads)
    public_bundle = bundle.read_bundle(job.bundle)
    identity = RunIdentity.of_run(public_bundle, job.protocol)
    demand = executor.record_demand(public_bundle.graphs, job.protocol)
    with socket.socket(fileno=job.listener) as listener:
        parties = accept_parties(listener, bytes.fromhex(job.token), identity, job.sequences, job.timeout)
    seeds, number = (new_seed(), new_seed()), secrets.token_bytes(DEALING_NUMBER_BYTES)
    for party, seed in zip(parties, seeds, strict=True):
        send_all(party, WELCOME.pack(number, seed))
        party.settimeout(None)
    with suppress(RunError):  # a party that hangs up ends the dealing, and reports the reason itself
        for shares in demand.replay(DealerSource(*map(AesCtrPrg, seeds)), job.sequences):
            for share in shares:
                send_all(parties[0], raw_bytes(share))
        for party in parties:
            receive_exactly(party, bytearray(1))


if __name__ == "__main__":
    sys.exit(worker.run_job(serve_parties, DealerJob))
