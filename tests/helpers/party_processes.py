"""Both parties of `run party`, as processes forked from a server that has imported everything they need."""

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
CONTEXT.set_forkserver_preload(["pi_sim.cli", "pi_sim.inference.remote", "pi_sim.report.terminal"])


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
    """Do what `python -m pi_sim run party` does, with both output streams in files."""
    from pi_sim.cli import main

    if namespace:
        enter_namespace(namespace)
    for stream, path in ((1, out), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    main(["run", "party", *arguments], prog_name="pi-sim")


def enter_namespace(namespace: str) -> None:
    """Move this process into a network namespace."""
    with Path("/run/netns", namespace).open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), namespace)


def free_address() -> str:
    """Return an address on the loopback where nobody listens, and that the system gives to no other connection."""
    while True:
        address = "127.0.0.1", random.randrange(*PORTS)
        with suppress(OSError), socket.create_server(address):
            return f"{address[0]}:{address[1]}"


@contextmanager
def start_parties(
    bundles: list[Path], rendezvous: str, *arguments: str, namespaces: list[str] | None = None, **options: list[str]
) -> Iterator[list[PartyProcess]]:
    """Start both parties with the same arguments, and with options of their own; kill them afterwards."""
    parties: list[PartyProcess] = []
    try:
        for rank, bundle in enumerate(bundles):
            own = [word for name, values in options.items() for word in (f"--{name}", values[rank])]
            common = ["--rank", str(rank), "--rendezvous", rendezvous, "--bundle", str(bundle)]
            parties.append(PartyProcess([*common, *arguments, *own], namespaces[rank] if namespaces else None))
        yield parties
    finally:
        for party in parties:
            party.kill()
            party.process.join()


def is_connected(party: PartyProcess) -> bool:
    """Return whether the party is connected to the other one."""
    if not party.is_alive():
        return False
    connections = psutil.Process(party.pid).net_connections(kind="tcp")
    return any(connection.status == psutil.CONN_ESTABLISHED for connection in connections)


def wait_for_exit(party: PartyProcess) -> tuple[int, str, str]:
    """Wait for the exit; return status, standard output, and standard error without the progress."""
    party.process.join(PATIENCE)
    out, errors = (Path(stream.name).read_text(encoding="utf-8") for stream in (party.out, party.errors))
    assert "Traceback" not in errors, errors
    messages = "".join(line for line in errors.splitlines(keepends=True) if not line.startswith("private inference"))
    status = party.process.exitcode
    assert status is not None, messages
    return status, out, messages
