"""Bytes over a connection: all or one sentence. Every step may take `timeout` seconds, not the whole message."""

import struct
from collections.abc import Callable
from typing import Protocol

from pi_sim.errors import RunError

LENGTH = struct.Struct("<Q")


class Connection(Protocol):
    """A socket, or what is used like one."""

    def send(self, data: memoryview, /) -> int: ...
    def recv_into(self, buffer: memoryview, /) -> int: ...
    def gettimeout(self) -> float | None: ...
    def settimeout(self, value: float | None, /) -> None: ...
    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


def send_all(connection: Connection, payload: bytes | bytearray | memoryview) -> None:
    """Send everything; a `RunError` says why not."""
    view = memoryview(payload)
    while view:
        view = view[_transfer(connection, connection.send, view, "took") :]


def receive_exactly(connection: Connection, buffer: bytearray | memoryview) -> bytearray | memoryview:
    """Fill the buffer; a `RunError` says why not."""
    receive_at_least(connection, buffer, len(buffer))
    return buffer


def receive_at_least(connection: Connection, buffer: bytearray | memoryview, least: int) -> int:
    """The first `least` bytes of the buffer, or more when they are there already; how many."""
    view, filled = memoryview(buffer), 0
    while filled < least:
        count = _transfer(connection, connection.recv_into, view[filled:], "sent")
        if not count:
            raise RunError("the other party closed the connection.")
        filled += count
    return filled


def send_text(connection: Connection, text: bytes) -> None:
    """Send a text of any length, with its length before it."""
    send_all(connection, LENGTH.pack(len(text)) + text)


def receive_text(connection: Connection, most: int) -> bytes:
    """The other party's text, of at most so many bytes."""
    (length,) = LENGTH.unpack(receive_exactly(connection, bytearray(LENGTH.size)))
    if length > most:
        raise RunError(f"the other party announced {length:,} bytes where at most {most:,} were due.")
    return bytes(receive_exactly(connection, bytearray(length)))


def _transfer(connection: Connection, transfer: Callable[[memoryview], int], view: memoryview, did: str) -> int:
    try:
        return transfer(view)
    except TimeoutError:
        raise RunError(f"the other party {did} nothing for {connection.gettimeout():g} seconds.") from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror  # TLS has a name for what is wrong
        raise RunError(f"the connection to the other party broke ({reason}).") from None
