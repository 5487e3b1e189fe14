"""Meetings in one process, and whoever else may call: connections alone, without anything computed."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pi_sim.errors import RunError
from pi_sim.mpc import wire
from pi_sim.mpc.rendezvous import Door, call, wait

PATIENCE = 20.0


class RendezvousServer:
    """Party 0 of a meeting, waiting in a thread; `refusals` is what it said of strangers."""

    def __init__(self, door: Door, timeout: float = PATIENCE) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.refusals: list[str] = []
        self.result: Any = None
        self.thread = threading.Thread(target=self._wait, args=(door, timeout))
        self.thread.start()

    def _wait(self, door: Door, timeout: float) -> None:
        try:
            self.result = wait(self.listener, door, timeout, self.refusals.append)
        except RunError as error:
            self.result = error

    def connection(self) -> wire.Connection:
        """The connection to whom it let in."""
        self.thread.join(PATIENCE)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def refuses(self, stranger: Callable[[socket.socket], None]) -> str:
        """What is said of a stranger, who calls and does something; the server must still wait afterwards."""
        before = len(self.refusals)
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            stranger(connection)
        for _ in range(int(PATIENCE / 0.01)):
            if len(self.refusals) > before:
                break
            self.thread.join(0.01)
        assert self.thread.is_alive(), self.result
        (sentence,) = self.refusals[before:]
        return sentence


@contextmanager
def connected_pair(server: Door, client: Door) -> Iterator[tuple[wire.Connection, wire.Connection]]:
    """Both ends of a connection, closed afterwards."""
    waiting = RendezvousServer(server)
    theirs = call("127.0.0.1", waiting.port, client, PATIENCE)
    ours = waiting.connection()
    yield ours, theirs
    ours.close()
    theirs.close()
