"""Where two machines meet, and whether what passes between them is encrypted."""

# MERGED: Where two machines meet: the server listens and examines whoever calls, the client calls until it is answered. A caller says that it speaks this protocol, which meeting it comes to, and which way data will flow; it is welcome when all ways of one meeting are there. Everybody else is refused in one sentence, and the server goes on waiting.  # noqa: E501

import ipaddress
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from pi_sim.errors import RunError, UsageError
from pi_sim.mpc.transport import wire


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT taken apart; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"{text!r} is no address; write --rendezvous HOST:PORT, such as 192.0.2.7:5000.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    return all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for _, each in _resolve(host))


def listen_at(host: str, port: int) -> socket.socket:
    """The server's socket; a `UsageError` where this machine does not have the address, or the port is in use."""
    family, found = _resolve(host)[0]
    try:
        return socket.create_server((found, port), family=family)
    except OSError as error:
        raise UsageError(
            f"{host}:{port} cannot be listened at ({os.strerror(error.errno or 0)}); --rendezvous is an address of "
            "party 0's machine, with a port that is free."
        ) from None


def _resolve(host: str) -> list[tuple[int, str]]:
    """The address family and the number of each address that a host has."""
    try:
        return [(each[0], str(each[4][0])) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):  # a name may also be none that the domain system could know
        raise UsageError(f"there is no host {host!r}; --rendezvous is where the server can be reached.") from None


HELLO = struct.Struct("<8s16sB")
MAGIC = b"pi-sim 1"
WELCOME = b"welcome!"
BOTH_WAYS, TO_SERVER, TO_CLIENT = range(3)
"""Which way data flows on a connection."""
HELLO_TIMEOUT_S = 5.0
"""Seconds in which a caller has to say who it is."""
POLL_INTERVAL_S = 0.05
"""Seconds between two looks at who has called, and between two calls."""


class Transport(Protocol):
    """How a connection is opened: plain, or encrypted with certificates."""

    @property
    def streams(self) -> tuple[int, ...]:
        """The ways that data flows, a connection for each."""

    def wrap(self, connection: socket.socket, server: bool) -> socket.socket:
        """The connection to be used; a `RunError` says why the other end is not let in."""

    def combine(self, ways: dict[int, socket.socket], server: bool) -> wire.Connection:
        """All ways as one connection."""


class PlainTransport:
    """One connection for both ways, not encrypted."""

    streams = (BOTH_WAYS,)

    def wrap(self, connection: socket.socket, server: bool) -> socket.socket:
        return connection

    def combine(self, ways: dict[int, socket.socket], server: bool) -> wire.Connection:
        return ways[BOTH_WAYS]


def accept_peer(
    listener: socket.socket, transport: Transport, timeout: float, on_refusal: Callable[[str], None]
) -> wire.Connection:
    """The server's end of the first complete meeting within `timeout` seconds; `refused` is told of other callers.

    Every caller is examined in a thread of its own, so that a silent one holds nobody up. Closes the listener.
    """
    callers, until = PendingPeers(transport, on_refusal), time.monotonic() + timeout
    with listener, callers:
        listener.settimeout(POLL_INTERVAL_S)
        while not (ways := callers.complete_streams()):
            if time.monotonic() > until:
                raise RunError(f"the client did not call within {timeout:g} seconds.")
            with suppress(OSError):  # nobody has called, or a caller was gone before it was answered
                connection, address = listener.accept()
                threading.Thread(target=callers.examine, args=(connection, address[0]), daemon=True).start()
    for connection in ways.values():
        connection.settimeout(timeout)
        wire.send_all(connection, WELCOME)
    return transport.combine(ways, server=True)


def connect_to_server(host: str, port: int, transport: Transport, timeout: float) -> wire.Connection:
    """The client's end: it calls until the server listens, `timeout` seconds at most, whichever is started first."""
    until, meeting, ways = time.monotonic() + timeout, secrets.token_bytes(16), {}
    for way in transport.streams:
        connection = _connect_with_retries(host, port, until, timeout)
        with _explain_failure(host, port):
            ways[way] = transport.wrap(connection, server=False)
            wire.send_all(ways[way], HELLO.pack(MAGIC, meeting, way))
    with _explain_failure(host, port):
        for connection in ways.values():
            if bytes(wire.receive_exactly(connection, bytearray(len(WELCOME)))) != WELCOME:
                raise RunError("it answers in another protocol.")
    return transport.combine(ways, server=False)


def _connect_with_retries(host: str, port: int, until: float, timeout: float) -> socket.socket:
    while (left := until - time.monotonic()) > 0:
        try:
            connection = socket.create_connection((host, port), timeout=left)
            connection.settimeout(timeout)
            return connection
        except OSError:
            time.sleep(min(POLL_INTERVAL_S, left))
    raise RunError(f"no server was reached at {host}:{port} within {timeout:g} seconds.")


@contextmanager
def _explain_failure(host: str, port: int) -> Iterator[None]:
    """A failure inside says with whom, and what it is most often."""
    try:
        yield
    except RunError as error:
        said = str(error).rstrip(".")
        asked = "do both parties encrypt, with the keys of one pair, or neither"
        raise RunError(f"the server at {host}:{port} and this party did not come together ({said}); {asked}?") from None


class PendingPeers:
    """Whoever has called so far, by meeting and way; as a context, for as long as somebody is waited for."""

    def __init__(self, door: Transport, refused: Callable[[str], None]) -> None:
        self.transport, self.on_refusal = door, refused
        self.streams_by_peer: dict[bytes, dict[int, socket.socket]] = {}

    def __enter__(self) -> None:
        """Callers are let in or refused."""

    def __exit__(self, *_: object) -> None:
        """Who is still being examined comes too late, which nobody needs to be told."""
        self.on_refusal = lambda sentence: None

    def examine(self, connection: socket.socket, address: str) -> None:
        """Let a caller in, or refuse it."""
        try:
            connection.settimeout(HELLO_TIMEOUT_S)
            connection = self.transport.wrap(connection, server=True)
            magic, meeting, way = HELLO.unpack(wire.receive_exactly(connection, bytearray(HELLO.size)))
            if magic != MAGIC or way not in self.transport.streams:
                raise RunError("it does not speak the parties' protocol.")
            self.streams_by_peer.setdefault(meeting, {})[way] = connection
        except RunError as error:
            connection.close()
            self.on_refusal(f"refused a caller at {address}: {error}")

    def complete_streams(self) -> dict[int, socket.socket] | None:
        """The connections of a meeting to which all ways have come."""
        return next(
            (ways for ways in list(self.streams_by_peer.values()) if len(ways) == len(self.transport.streams)), None
        )
