"""How parties and a third-party dealer meet: each party calls, says who it is, and is told its seed.

The dealer then streams party 0's shares over party 0's connection; party 1's stays idle. Both stay open until the run
is over.
"""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from pi_sim.errors import RunError
from pi_sim.mpc import wire
from pi_sim.mpc.dealer.kinds import DEALING_NUMBER_BYTES, THIRD_PARTY, ExternalDealer
from pi_sim.mpc.dealer.stream import SEED_BYTES
from pi_sim.mpc.dealer.terms import RunIdentity

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


def request_seed(port: int, token: bytes, rank: int, terms: RunIdentity, sequences: int, timeout: float) -> ExternalDealer:
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
