"""How two parties meet, and what they make sure of before any share moves."""

import hashlib
import secrets
import socket
import struct

from pi_sim import __version__
from pi_sim.errors import RunError
from pi_sim.mpc import backend, wire
from pi_sim.mpc.dealer.source import Source
from pi_sim.mpc.dealer.stream import SEED, Stream, seed

GREETING = struct.Struct(f"<32sq{SEED}s")


def meet(listener: int | None, port: int, timeout: float) -> socket.socket:
    """Party 0 waits for the other on its listening socket, party 1 calls it; both wait `timeout` seconds at most.

    `listener` is the descriptor of party 0's socket, None at party 1.
    """
    try:
        if listener is None:
            return socket.create_connection(("127.0.0.1", port), timeout=timeout)
        with socket.socket(fileno=listener) as waiting:
            waiting.settimeout(timeout)
            connection = waiting.accept()[0]
            connection.settimeout(timeout)
            return connection
    except OSError:
        raise RunError(f"the other party could not be reached within {timeout:g} seconds.") from None


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
