"""Connections of two parties: complete transfers over them, and the rendezvous of two machines.

A transfer is complete, or a `RunError` in one sentence. The socket's time-out limits every single transfer, not the
whole message.

At the rendezvous the server listens and examines every caller, the client calls until it is answered. A caller sends
the protocol's name, the number of its rendezvous, and the direction in which data will flow on the connection. It is
welcomed once all streams of one rendezvous are there. Every other caller is refused with one sentence, and the server
goes on waiting.
"""

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

LENGTH = struct.Struct("<Q")


class Connection(Protocol):
    """The methods of a socket that a link uses."""

    def send(self, data: memoryview, /) -> int: ...
    def recv_into(self, buffer: memoryview, /) -> int: ...
    def gettimeout(self) -> float | None: ...
    def settimeout(self, value: float | None, /) -> None: ...
    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


def send_all(connection: Connection, payload: bytes | bytearray | memoryview) -> None:
    """Send the whole payload or raise `RunError`."""
    view = memoryview(payload)
    while view:
        view = view[_transfer(connection, connection.send, view, "read") :]


def receive_exactly(connection: Connection, buffer: bytearray | memoryview) -> bytearray | memoryview:
    """Fill the buffer or raise `RunError`; return it."""
    receive_at_least(connection, buffer, len(buffer))
    return buffer


def receive_at_least(connection: Connection, buffer: bytearray | memoryview, minimum: int) -> int:
    """Fill at least the first `minimum` bytes of the buffer, more if they have arrived; return how many."""
    view, filled = memoryview(buffer), 0
    while filled < minimum:
        count = _transfer(connection, connection.recv_into, view[filled:], "sent")
        if not count:
            raise RunError("the other party closed the connection.")
        filled += count
    return filled


def send_text(connection: Connection, text: bytes) -> None:
    """Send a text of any length behind its length, 8 bytes."""
    send_all(connection, LENGTH.pack(len(text)) + text)


def receive_text(connection: Connection, limit: int) -> bytes:
    """Receive the other party's text; a longer one than `limit` bytes is a `RunError`."""
    (length,) = LENGTH.unpack(receive_exactly(connection, bytearray(LENGTH.size)))
    if length > limit:
        raise RunError(f"the other party announced {length:,} bytes where at most {limit:,} were due.")
    return bytes(receive_exactly(connection, bytearray(length)))


def _transfer(connection: Connection, transfer: Callable[[memoryview], int], view: memoryview, verb: str) -> int:
    try:
        return transfer(view)
    except TimeoutError:
        raise RunError(f"the other party {verb} nothing for {connection.gettimeout():g} seconds.") from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror  # TLS names its failures
        raise RunError(f"the connection to the other party broke ({reason}).") from None


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"{text!r} is not an address; write --rendezvous HOST:PORT, such as 192.0.2.7:5000.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Return True if every address of a host is on the loopback."""
    return all(ipaddress.ip_address(number.partition("%")[0]).is_loopback for _, number in _resolve(host))


def listen_at(host: str, port: int) -> socket.socket:
    """Return the server's socket; raise `UsageError` if this machine lacks the address, or the port is in use."""
    family, number = _resolve(host)[0]
    try:
        return socket.create_server((number, port), family=family)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}:{port} ({os.strerror(error.errno or 0)}); give --rendezvous an address of party "
            "0's machine with a free port."
        ) from None


def _resolve(host: str) -> list[tuple[int, str]]:
    """Return the family and the number of each address of a host."""
    try:
        return [(info[0], str(info[4][0])) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):  # UnicodeError: not a valid domain name
        raise UsageError(f"there is no host {host!r}; give --rendezvous the address of the server.") from None


HELLO = struct.Struct("<8s16sB")
"""Name of the protocol, number of the rendezvous, and direction of the connection."""
MAGIC = b"pi-sim 1"
WELCOME = b"welcome!"
BOTH_WAYS, TO_SERVER, TO_CLIENT = range(3)
"""Direction of the data on a connection."""
HELLO_TIMEOUT_S = 5.0
"""Seconds that a caller has for its handshake and for each part of its hello."""
POLL_INTERVAL_S = 0.05
"""Seconds between two checks for callers, and between two calls."""


class Transport(Protocol):
    """A way to open connections: plain, or encrypted with certificates."""

    @property
    def streams(self) -> tuple[int, ...]:
        """Directions, each with a connection of its own."""

    def wrap(self, connection: socket.socket, server: bool) -> socket.socket:
        """Return the connection to use; raise `RunError` if the other end is refused."""

    def combine(self, streams: dict[int, socket.socket], server: bool) -> Connection:
        """Return the streams of all directions as one connection."""


class PlainTransport:
    """One connection for both directions, not encrypted."""

    streams = (BOTH_WAYS,)

    def wrap(self, connection: socket.socket, server: bool) -> socket.socket:
        return connection

    def combine(self, streams: dict[int, socket.socket], server: bool) -> Connection:
        return streams[BOTH_WAYS]


def accept_peer(
    listener: socket.socket, transport: Transport, timeout: float, on_refusal: Callable[[str], None]
) -> Connection:
    """Return the server's end of the first complete rendezvous within `timeout` seconds, and close the listener.

    `on_refusal` is called with a sentence about every refused caller. Each caller is examined in a thread of its own,
    so that a silent one does not delay the others.
    """
    peers, deadline = PendingPeers(transport, on_refusal), time.monotonic() + timeout
    with listener, peers:
        listener.settimeout(POLL_INTERVAL_S)
        while not (streams := peers.complete_streams()):
            if time.monotonic() > deadline:
                raise RunError(f"the client did not connect within {timeout:g} seconds.")
            with suppress(OSError):  # no caller yet, or one that has gone before it was accepted
                connection, address = listener.accept()
                threading.Thread(target=peers.examine, args=(connection, address[0]), daemon=True).start()
    for connection in streams.values():
        connection.settimeout(timeout)
        send_all(connection, WELCOME)
    return transport.combine(streams, server=True)


def connect_to_server(host: str, port: int, transport: Transport, timeout: float) -> Connection:
    """Return the client's end; it calls for up to `timeout` seconds, so either party may be started first."""
    deadline, number, streams = time.monotonic() + timeout, secrets.token_bytes(16), {}
    for direction in transport.streams:
        connection = _connect_with_retries(host, port, deadline, timeout)
        with _explain_failure(host, port):
            streams[direction] = transport.wrap(connection, server=False)
            send_all(streams[direction], HELLO.pack(MAGIC, number, direction))
    with _explain_failure(host, port):
        for connection in streams.values():
            if bytes(receive_exactly(connection, bytearray(len(WELCOME)))) != WELCOME:
                raise RunError("it answers in another protocol.")
    return transport.combine(streams, server=False)


def _connect_with_retries(host: str, port: int, deadline: float, timeout: float) -> socket.socket:
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection((host, port), timeout=left)
            connection.settimeout(timeout)
            return connection
        except OSError:
            time.sleep(min(POLL_INTERVAL_S, left))
    raise RunError(f"no server was reached at {host}:{port} within {timeout:g} seconds.")


@contextmanager
def _explain_failure(host: str, port: int) -> Iterator[None]:
    """Add the server's address and the most frequent cause to a failure."""
    try:
        yield
    except RunError as error:
        raise RunError(
            f"the rendezvous with the server at {host}:{port} failed ({str(error).rstrip('.')}); both parties must "
            "encrypt, with the keys of one pair, or neither."
        ) from None


class PendingPeers:
    """Accepted callers by rendezvous and direction; as a context, for as long as the server waits for its peer."""

    def __init__(self, transport: Transport, on_refusal: Callable[[str], None]) -> None:
        self.transport, self.on_refusal = transport, on_refusal
        self.streams_by_number: dict[bytes, dict[int, socket.socket]] = {}

    def __enter__(self) -> None:
        """Begin to accept or refuse callers."""

    def __exit__(self, *_: object) -> None:
        """Drop callers still in the handshake silently."""
        self.on_refusal = lambda sentence: None

    def examine(self, connection: socket.socket, address: str) -> None:
        """Accept a caller, or refuse it."""
        try:
            connection.settimeout(HELLO_TIMEOUT_S)
            connection = self.transport.wrap(connection, server=True)
            magic, number, direction = HELLO.unpack(receive_exactly(connection, bytearray(HELLO.size)))
            if magic != MAGIC or direction not in self.transport.streams:
                raise RunError("it does not speak the parties' protocol.")
            self.streams_by_number.setdefault(number, {})[direction] = connection
        except RunError as error:
            connection.close()
            self.on_refusal(f"refused a caller at {address}: {error}")

    def complete_streams(self) -> dict[int, socket.socket] | None:
        """Return the streams of a rendezvous that has all of them, None as long as there is none."""
        rendezvous = list(self.streams_by_number.values())
        return next((streams for streams in rendezvous if len(streams) == len(self.transport.streams)), None)
