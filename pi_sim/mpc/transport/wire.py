"""Bytes over a connection: complete, or a `RunError` in one sentence.

The socket's time-out limits every single transfer, not the whole message.
"""

import struct
from collections.abc import Callable
from typing import Protocol

from pi_sim.errors import RunError

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
