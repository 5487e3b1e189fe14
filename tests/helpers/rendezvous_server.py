"""A server that waits for its peer in a thread, and callers that it must refuse: connections without computation."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pi_sim.errors import RunError
from pi_sim.mpc.transport.connection import Connection, Transport, accept_peer, connect_to_server

PATIENCE = 20.0


class RendezvousServer:
    """Party 0, waiting for its peer in a thread; `refusals` are its sentences about other callers."""

    def __init__(self, transport: Transport, timeout: float = PATIENCE) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.refusals: list[str] = []
        self.result: Any = None
        self.thread = threading.Thread(target=self._wait, args=(transport, timeout))
        self.thread.start()

    def _wait(self, transport: Transport, timeout: float) -> None:
        try:
            self.result = accept_peer(self.listener, transport, timeout, self.refusals.append)
        except RunError as error:
            self.result = error

    def connection(self) -> Connection:
        """Return the connection to the peer that it accepted."""
        self.thread.join(PATIENCE)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def refuses(self, stranger: Callable[[socket.socket], None]) -> str:
        """Return the sentence about a caller that it refuses; the server must still wait afterwards."""
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
def connected_pair(server: Transport, client: Transport) -> Iterator[tuple[Connection, Connection]]:
    """Yield both ends of a connection, the server's first; close them afterwards."""
    waiting = RendezvousServer(server)
    client_end = connect_to_server("127.0.0.1", waiting.port, client, PATIENCE)
    server_end = waiting.connection()
    yield server_end, client_end
    server_end.close()
    client_end.close()
