"""The other party of what is measured between two processes on this machine."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pi_sim.errors import RunError
from pi_sim.mpc.dealer.dealers import FirstPartyDealer
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.launch import threads_per_party
from pi_sim.mpc.transport.handshake import handshake
from pi_sim.mpc.transport.link import Link

TIMEOUT_S = 60.0


@contextmanager
def peer_process(module: str, *arguments: object) -> Iterator[socket.socket]:
    """A connection to `python -m MODULE PORT ARGUMENT ...`, a process that is gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", module, *map(str, (listener.getsockname()[1], *arguments))]
        other = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            listener.settimeout(TIMEOUT_S)
            yield listener.accept()[0]
        except TimeoutError:
            raise RunError(f"the other party could not be reached within {TIMEOUT_S:g} seconds.") from None
        finally:
            other.kill()
            other.wait()


@contextmanager
def connected_party(connection: socket.socket, rank: int) -> Iterator[tuple[Link, Source]]:
    """A party's link and source once both have met, with the threads that it has in a run; party 0 is the dealer."""
    connection.settimeout(TIMEOUT_S)
    with _party_threads():
        source = handshake(connection, FirstPartyDealer(rank), {})
        link = Link(connection, rank)
        yield link, source
        link.close()


@contextmanager
def _party_threads() -> Iterator[None]:
    """The threads that a party of a run has, for as long as the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_per_party())
    try:
        yield
    finally:
        torch.set_num_threads(before)
