"""Runs with an external dealer: a third process or files serve stock and own kernels, with the same counters."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from click.testing import CliRunner

from pi_sim.cli import main
from pi_sim.errors import RunError
from pi_sim.inference.two_party import export_bundle
from pi_sim.mpc.dealer import server
from pi_sim.mpc.dealer.correlations import TensorSpec
from pi_sim.mpc.dealer.dealers import RunIdentity
from pi_sim.mpc.dealer.prg import AesCtrPrg
from pi_sim.specs import load_executable_protocol
from pi_sim.zoo.source import ModelSource

pytestmark = pytest.mark.parties

PROTOCOLS = ("crypten", "lean_outsourced", "lean")
IDENTITY = RunIdentity("graph", "protocol")
TOKEN = bytes(range(server.TOKEN_BYTES))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Export a shipped model for each protocol."""
    folder, source = tmp_path_factory.mktemp("export"), ModelSource.parse("relu_nonorm", "tiny")
    return {name: export_bundle(source, 8, folder / name, load_executable_protocol(name)).folder for name in PROTOCOLS}


@pytest.fixture(scope="module")
def bundle(bundles: dict[str, Path]) -> Path:
    return bundles["lean"]


def pi_sim(*arguments: object) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["third-party", "file"])
def test_an_external_dealer_serves_every_protocol(
    kind: str, protocol: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """The run's own audit compares predicted, requested and received bytes, of the socket or the file."""
    bundle = bundles[protocol]
    dealer, sequences = kind, 2 if kind == "file" else 1
    if kind == "file":
        dealer = str(tmp_path / "dealt")
        pi_sim("deal", "--bundle", bundle, "--protocol", protocol, "--sequences", sequences, "--out", dealer)
    options = ("--bundle", bundle, "--model", "relu_nonorm", "--protocol", protocol, "--dealer", dealer)
    summary = pi_sim("run", "two-party", *options, "--sequences", sequences, "--json", tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["dealer"] == kind
    assert record["measured"]["offline_bytes"] == record["total"]["offline_bytes"] > 0
    assert record["agreement"]["top1"] > 0.8
    assert record["agreement"]["max_abs"] < 0.2
    assert {"third-party": "a third process", "file": "dealt beforehand"}[kind] in summary


def test_a_dealer_that_dies_ends_both_parties(bundle: Path) -> None:
    command = [sys.executable, "-m", "pi_sim", "run", "two-party", "--bundle", str(bundle), "--sequences", "50"]
    process = subprocess.Popen(
        [*command, "--protocol", "lean", "--dealer", "third-party"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        dealer, parties = wait_for_dealing(process)
        dealer.kill()
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, out) == (1, "")
        assert errors.splitlines()[-1].startswith("pi-sim: the run failed; party 0: the dealer closed the connection")
        assert "the dealer was killed by SIGKILL" in errors
        assert "Traceback" not in errors
        assert not psutil.wait_procs(parties, timeout=5)[1]
    finally:
        process.kill()
        process.wait()


def wait_for_dealing(process: "subprocess.Popen[str]") -> tuple[psutil.Process, list[psutil.Process]]:
    """Wait until both parties are connected to the dealer; return the dealer and the parties."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        children = psutil.Process(process.pid).children()
        dealers = [child for child in children if "pi_sim.mpc.dealer.server" in child.cmdline()]
        if dealers and len(connections(dealers[0])) == 2:
            return dealers[0], [child for child in children if child not in dealers]
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the dealer did not start")


def connections(process: psutil.Process) -> list[Any]:
    return [item for item in process.net_connections(kind="tcp") if item.status == psutil.CONN_ESTABLISHED]


class DealerThread(threading.Thread):
    """A dealer that accepts its parties in a thread."""

    def __init__(self, timeout: float = 5.0) -> None:
        super().__init__()
        self.listener, self.timeout = socket.create_server(("127.0.0.1", 0)), timeout
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = server.accept_parties(self.listener, TOKEN, IDENTITY, 3, self.timeout)
            for rank, connection in enumerate(self.result):
                connection.sendall(server.WELCOME.pack(bytes(16), bytes([rank] * 16)))
        except RunError as error:
            self.result = str(error)
        self.listener.close()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])


def test_a_stranger_receives_no_seed_and_does_not_end_the_dealing() -> None:
    dealer = DealerThread()
    port = dealer.port
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(server.HELLO.pack(bytes(server.TOKEN_BYTES), 0, 3, IDENTITY.digest()))
        assert stranger.recv(1) == b""
    socket.create_connection(("127.0.0.1", port)).close()
    parties: list[Any] = [None, None]
    threads = [threading.Thread(target=_request_seed, args=(port, rank, parties)) for rank in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in (*threads, dealer):
        thread.join(20)
    for rank, party in enumerate(parties):
        (words,) = party.open_source(bytes(16)).own_prg.draw(TensorSpec((4,)))
        assert torch.equal(words, *AesCtrPrg(bytes([rank] * 16)).draw(TensorSpec((4,))))


def _request_seed(port: int, rank: int, parties: list[Any]) -> None:
    parties[rank] = server.request_seed(port, TOKEN, rank, IDENTITY, 3, 5.0)


@pytest.mark.parametrize(("identity", "sequences"), [(RunIdentity("another", "protocol"), 3), (IDENTITY, 4)])
def test_a_party_of_another_run_is_refused(identity: RunIdentity, sequences: int) -> None:
    dealer = DealerThread()
    with pytest.raises(RunError, match=r"the dealer closed the connection|the connection to the dealer broke"):
        server.request_seed(dealer.port, TOKEN, 1, identity, sequences, 5.0)
    dealer.join()
    assert dealer.result == "party 1 holds another graph, protocol, version or number of sequences."


def test_a_dealer_does_not_wait_forever() -> None:
    dealer = DealerThread(timeout=0.2)
    dealer.join()
    assert dealer.result == "the parties did not connect in time."


def test_an_absent_dealer_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RunError, match="the dealer could not be reached"):
        server.request_seed(port, TOKEN, 0, IDENTITY, 1, 1.0)
