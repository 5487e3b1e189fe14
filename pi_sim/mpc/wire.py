"""Bytes over a socket: all of them or one sentence. Every step may take `timeout` seconds, not the whole message."""

import socket
from collections.abc import Callable

from pi_sim.errors import RunError


def send(connection: socket.socket, payload: bytes | memoryview) -> None:
    """Send everything; a `RunError` says why not."""
    view = memoryview(payload)
    while view:
        view = view[_step(connection, connection.send, view, "took") :]


def receive(connection: socket.socket, buffer: bytearray | memoryview) -> bytearray | memoryview:
    """Fill the buffer; a `RunError` says why not."""
    view = memoryview(buffer)
    while view:
        count = _step(connection, connection.recv_into, view, "sent")
        if not count:
            raise RunError("the other party closed the connection.")
        view = view[count:]
    return buffer


def _step(connection: socket.socket, transfer: Callable[[memoryview], int], view: memoryview, did: str) -> int:
    try:
        return transfer(view)
    except TimeoutError:
        raise RunError(f"the other party {did} nothing for {connection.gettimeout():g} seconds.") from None
    except OSError as error:
        raise RunError(f"the connection to the other party broke ({error.strerror}).") from None
