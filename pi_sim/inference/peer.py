"""The second party of a measurement between two processes on this machine."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pi_sim.errors import RunError
from pi_sim.mpc import worker
from pi_sim.mpc.dealer.dealers import FirstPartyDealer
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.launch import threads_per_party
from pi_sim.mpc.transport.handshake import perform_handshake
from pi_sim.mpc.transport.link import Link

TIMEOUT_S = 60.0


class PeerJob(worker.Job):
    """Parameters of the second party; `port` is set by `peer_process`."""

    port: int = 0


@contextmanager
def peer_process(module: str, job: PeerJob) -> Iterator[socket.socket]:
    """Yield a connection to a worker that runs a module with a job; the worker is gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = worker.start(
            module, job.model_copy(update={"port": listener.getsockname()[1]}), stdout=subprocess.DEVNULL
        )
        try:
            listener.settimeout(TIMEOUT_S)
            yield listener.accept()[0]
        except TimeoutError:
            raise RunError(f"the other party could not be reached within {TIMEOUT_S:g} seconds.") from None
        finally:
            process.kill()
            process.communicate()


def call_party(job: PeerJob) -> socket.socket:
    """Return the worker's connection to the process that started it."""
    return socket.create_connection(("127.0.0.1", job.port))


@contextmanager
def connected_party(connection: socket.socket, rank: int) -> Iterator[tuple[Link, Source]]:
    """Yield a party's link and source after the handshake, with a run's number of threads; party 0 is the dealer."""
    connection.settimeout(TIMEOUT_S)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads_per_party())
    try:
        source = perform_handshake(connection, FirstPartyDealer(rank), {})
        link = Link(connection, rank)
        yield link, source
        link.close()
    finally:
        torch.set_num_threads(threads_before)
