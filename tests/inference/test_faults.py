"""Failures end a run quickly, with the reason in one sentence, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from pi_sim.errors import RunError
from pi_sim.mpc import party
from pi_sim.mpc.dealer import server
from pi_sim.mpc.dealer.dealers import FirstPartyDealer
from pi_sim.mpc.launch import ChildProcess, _forward_progress, _wait_for_exit
from pi_sim.mpc.transport.handshake import connect, perform_handshake
from pi_sim.mpc.transport.link import HEADER, Link
from pi_sim.network import parse_network

pytestmark = pytest.mark.parties

PI_SIM = [sys.executable, "-m", "pi_sim"]
RUN = [*PI_SIM, "run", "two-party", "--model", "relu_nonorm", "--seq-len", "64", "--sequences", "20"]
PATIENCE = 120
TERMS = {"graph": "a digest"}
NOW = (0.0,) * 5


@pytest.fixture
def running(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a long run, with its temporary files in `tmp_path`; kill it afterwards."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(RUN, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    for child in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
        child.kill()
    process.kill()
    process.wait()


def parties_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Wait until both parties are connected, far from the end of 20 sequences, and return them."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        children = psutil.Process(process.pid).children()
        if len(children) == 2 and all(connected(child) for child in children):
            return sorted(children, key=lambda child: child.pid)
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the parties did not start")


def connected(party: psutil.Process) -> bool:
    return any(connection.status == psutil.CONN_ESTABLISHED for connection in party.net_connections(kind="tcp"))


def have_ended(processes: list[psutil.Process], timeout: float) -> bool:
    return not psutil.wait_procs(processes, timeout=timeout)[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_party_that_dies_ends_the_other(rank: int, running: "subprocess.Popen[str]", tmp_path: Path) -> None:
    parties = parties_of(running)
    parties[rank].kill()
    out, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert out == ""
    assert errors.count("\n") <= 2, errors
    assert f"party {rank} was killed by SIGKILL" in errors
    assert "Traceback" not in errors
    assert have_ended(parties, timeout=5)
    assert not list(tmp_path.glob("pi-sim-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_nothing(number: int, running: "subprocess.Popen[str]", tmp_path: Path) -> None:
    parties = parties_of(running)
    running.send_signal(number)
    _, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 128 + number
    assert "Traceback" not in errors
    assert have_ended(parties, timeout=5)
    assert not list(tmp_path.glob("pi-sim-*"))


def test_parties_do_not_outlive_their_parent(running: "subprocess.Popen[str]") -> None:
    parties = parties_of(running)
    running.kill()
    assert have_ended(parties, timeout=10)


def pair(timeout: float = 5.0, imitated: str | None = None) -> tuple[Link, socket.socket]:
    """Return a link, and the bare socket at its other end."""
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    connection = listener.accept()[0]
    listener.close()
    connection.settimeout(timeout)
    return Link(connection, 0, parse_network(imitated) if imitated else None), peer


def test_a_party_that_hangs_up_is_an_error() -> None:
    link, peer = pair()
    peer.close()
    with pytest.raises(RunError, match=r"closed the connection|connection to the other party broke"):
        link.all_reduce(torch.zeros(3, dtype=torch.long))


def test_a_party_that_stalls_is_an_error() -> None:
    link, peer = pair(timeout=0.2)
    with pytest.raises(RunError, match=r"sent nothing for 0\.2 seconds"):
        link.all_reduce(torch.zeros(3, dtype=torch.long))
    peer.close()


@pytest.mark.parametrize("header", [HEADER.pack(1, 8, *NOW), HEADER.pack(7, 24, *NOW), b"G" * HEADER.size])
def test_a_party_that_sends_nonsense_is_an_error(header: bytes) -> None:
    link, peer = pair()
    peer.sendall(header)
    with pytest.raises(RunError, match="where message 1 of 24 bytes was due"):
        link.all_reduce(torch.zeros(3, dtype=torch.long))
    peer.close()


def test_an_imitated_network_holds_messages_back() -> None:
    link, peer = pair(imitated="rtt=200ms,bw=1Mbps")
    payload = torch.arange(1000, dtype=torch.long)
    started = time.monotonic()
    peer.sendall(HEADER.pack(1, 8000, started, *NOW[1:]) + payload.numpy().tobytes())
    value = link.all_reduce(torch.zeros(1000, dtype=torch.long))
    assert time.monotonic() - started >= 0.1 + 0.064  # latency, and 64,000 bits at 1 Mbps
    assert torch.equal(value, payload)
    peer.close()


def test_a_long_message_may_take_longer_than_the_timeout() -> None:
    """The time-out limits a transfer, not the message."""
    link, peer = pair(timeout=0.5)
    size = 4_000_000
    receiver = threading.Thread(target=receive_slowly, args=(peer, 8 * size + HEADER.size, 1.5))
    receiver.start()
    link._send_message([torch.zeros(size, dtype=torch.long)])
    link.close()
    receiver.join()


def receive_slowly(connection: socket.socket, length: int, seconds: float) -> None:
    """Receive `length` bytes, a twentieth of them after each twentieth of the time."""
    received = 0
    for piece in range(1, 21):
        time.sleep(seconds / 20)
        while received < length * piece // 20:
            received += len(connection.recv(length * piece // 20 - received))


def test_a_party_that_reads_nothing_is_an_error() -> None:
    link, peer = pair(timeout=0.3)
    link._send_message([torch.zeros(10_000_000, dtype=torch.long)])
    with pytest.raises(RunError, match=r"read nothing for 0\.3 seconds"):
        link.close()
    peer.close()


def test_parties_with_different_graphs_do_not_start() -> None:
    connection, peer = socket.socketpair()
    peer.sendall(bytes(1000))
    with pytest.raises(RunError, match="the parties differ in graph and dealer; start both with the same"):
        perform_handshake(connection, FirstPartyDealer(0), TERMS)


def test_a_silent_stranger_is_a_timeout() -> None:
    """Party 0 accepts the first caller, and waits for it until the time-out only."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = socket.create_connection(listener.getsockname())
        descriptor = listener.detach()
    with pytest.raises(RunError, match=r"sent nothing for 0\.3 seconds"):
        perform_handshake(connect(descriptor, 0, 0.3), FirstPartyDealer(0), TERMS)
    caller.close()


def test_waiting_for_a_stuck_party_ends() -> None:
    quick, stuck = subprocess.Popen(["true"]), subprocess.Popen(["sleep", "60"])
    try:
        assert _wait_for_exit([quick, stuck], timeout=0.3) == [0, None]
    finally:
        stuck.kill()
        stuck.wait()


def test_a_running_dealer_is_no_failure(tmp_path: Path) -> None:
    parties, dealer = [subprocess.Popen(["true"]) for _ in range(2)], subprocess.Popen(["sleep", "60"])
    try:
        assert _wait_for_exit([*parties, dealer], timeout=60) == [0, 0, None]
    finally:
        dealer.kill()
        dealer.wait()
    (tmp_path / "errors").touch()
    for job, reason in ((party.PartyJob, "it did not exit"), (server.DealerJob, None)):
        assert ChildProcess("it", job.model_construct(), tmp_path).failure_reason(None) == reason


def test_unread_progress_does_not_stop_the_run() -> None:
    def broken(fraction: float) -> None:
        raise BrokenPipeError

    _forward_progress([b'{"done": 1, "total": 2}\n', b'{"done": 2, "total": 2}\n'], 1, broken)
