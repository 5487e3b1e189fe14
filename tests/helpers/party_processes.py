"""Both parties of a run across machines, as processes that share one import of everything they need."""

import ctypes
import multiprocessing as mp
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PATIENCE = 120
PORTS = 20_000, 30_000
"""Below those that systems give to connections."""
CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pi_sim.cli", "pi_sim.run.remote", "pi_sim.reporting.parties"])


class PartyProcess:
    """`pi-sim run party` in a process of its own, in a network namespace if one is named."""

    def __init__(self, arguments: list[str], namespace: str | None = None) -> None:
        self.out, self.errors = (tempfile.NamedTemporaryFile() for _ in (0, 1))  # noqa: SIM115
        self.process = CONTEXT.Process(target=run_party, args=(arguments, namespace, self.out.name, self.errors.name))
        self.process.start()
        self.pid = self.process.pid or 0

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()


def run_party(arguments: list[str], namespace: str | None, out: str, errors: str) -> None:
    """What `python -m pi_sim run party` does, its two streams in files."""
    from pi_sim.cli import main

    if namespace:
        enter_namespace(namespace)
    for stream, path in ((1, out), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    main(["run", "party", *arguments], prog_name="pi-sim")


def enter_namespace(namespace: str) -> None:
    """From here on this process has the network of a namespace."""
    with Path("/run/netns", namespace).open("rb") as opened:
        if ctypes.CDLL(None, use_errno=True).setns(opened.fileno(), 0):
            raise OSError(ctypes.get_errno(), namespace)


def free_address() -> str:
    """A place on the loopback where nobody listens, and which no other test's connection is given by chance."""
    while True:
        place = "127.0.0.1", random.randrange(*PORTS)
        with suppress(OSError), socket.create_server(place):
            return f"{place[0]}:{place[1]}"


@contextmanager
def start_parties(
    bundles: list[Path], place: str, *arguments: str, namespaces: list[str] | None = None, **each: list[str]
) -> Iterator[list[PartyProcess]]:
    """Both parties, with the same arguments and with an own value of some; none is left behind."""
    parties: list[PartyProcess] = []
    try:
        for rank, bundle in enumerate(bundles):
            own = [word for name, values in each.items() for word in (f"--{name}", values[rank])]
            where = ["--rank", str(rank), "--rendezvous", place, "--bundle", str(bundle)]
            parties.append(PartyProcess([*where, *arguments, *own], namespaces[rank] if namespaces else None))
        yield parties
    finally:
        for party in parties:
            party.kill()
            party.process.join()


def is_connected(party: PartyProcess) -> bool:
    """Whether it has met the other one."""
    if not party.is_alive():
        return False
    connections = psutil.Process(party.pid).net_connections(kind="tcp")
    return any(each.status == psutil.CONN_ESTABLISHED for each in connections)


def wait_for_exit(party: PartyProcess) -> tuple[int, str, str]:
    """Status, standard output, and what was said on standard error beside the progress."""
    party.process.join(PATIENCE)
    out, errors = (Path(stream.name).read_text(encoding="utf-8") for stream in (party.out, party.errors))
    assert "Traceback" not in errors, errors
    said = "".join(line for line in errors.splitlines(keepends=True) if not line.startswith("private inference"))
    status = party.process.exitcode
    assert status is not None, said
    return status, out, said
