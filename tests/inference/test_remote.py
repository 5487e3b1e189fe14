"""A run across two machines, as users start it: two commands, two folders, and a network between them."""

import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from pi_sim.cli import main
from pi_sim.inference import two_party
from pi_sim.inference.dealing import write_dealt_files
from pi_sim.mpc.transport import tls
from pi_sim.specs import load_executable_protocol
from pi_sim.zoo.source import ModelSource
from tests.helpers.network_namespaces import ADDRESSES, CABLE, carried_bytes, ip, two_namespaces
from tests.helpers.party_processes import (
    PATIENCE,
    PartyProcess,
    free_address,
    is_connected,
    start_parties,
    wait_for_exit,
)

pytestmark = pytest.mark.parties

LENGTH = 8
LEAN = load_executable_protocol("lean")
COUNTS = ("rounds", "bytes", "offline_bytes")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Export a bundle for each party, without the other's shares."""
    complete = tmp_path_factory.mktemp("bundles") / "complete"
    two_party.export_bundle(ModelSource.parse("relu_nonorm", "tiny"), LENGTH, complete, LEAN)
    folders = [complete.with_name(name) for name in ("server", "client")]
    for rank, folder in enumerate(folders):
        shutil.copytree(complete, folder, ignore=shutil.ignore_patterns(f"party{1 - rank}.safetensors"))
    return folders


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("keys") / "pair"
    tls.make_test_certificates(out)
    return [str(out / party) for party in ("server", "client")]


def test_shares_of_two_exports_are_not_mixed(bundles: list[Path], tmp_path: Path) -> None:
    """The graph is the same, the shares do not fit."""
    two_party.export_bundle(ModelSource.parse("relu_nonorm", "tiny"), LENGTH, tmp_path / "again", LEAN)
    with start_parties([bundles[0], tmp_path / "again"], free_address(), "--protocol", "lean") as two:
        for party in two:
            status, _, errors = wait_for_exit(party)
            assert (status, errors) == (1, "pi-sim: the parties differ in export; start both with the same.\n")


@pytest.mark.parametrize("host", ["a..b", "a" * 70])
def test_a_name_that_no_host_can_have_is_one_sentence(bundles: list[Path], host: str) -> None:
    arguments = ["run", "party", "--rank", "0", "--rendezvous", f"{host}:7000", "--bundle", str(bundles[0])]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "there is no host" in str(result.exception) + result.output


def test_two_parties_compute_what_was_predicted(bundles: list[Path], keys: list[str], tmp_path: Path) -> None:
    """The run is encrypted, and each party has its own shares only."""
    paths = [tmp_path / "server.json", tmp_path / "client.json"]
    with start_parties(
        bundles, free_address(), "--protocol", "lean", "--sequences", "3", keys=keys, json=list(map(str, paths))
    ) as two:
        (status, server, errors), (other, client, _) = map(wait_for_exit, two)
    assert (status, other) == (0, 0), errors
    records = [json.loads(path.read_text()) for path in paths]
    for rank, record in enumerate(records):
        assert (record["kind"], record["rank"], record["encrypted"], record["sequences"]) == ("party", rank, True, 3)
        assert all(record["measured"][key] == record["total"][key] for key in COUNTS)
        assert record["measured"]["session_bytes"] == record["session_bytes"] > 0
    assert records[0]["payload_bytes"]["sent"] == records[1]["payload_bytes"]["received"]
    assert records[1]["payload_bytes"]["sent"] == records[0]["payload_bytes"]["received"]
    assert records[0]["perplexity"] is None
    assert "perplexity" not in server
    assert 5 < records[1]["perplexity"]["private"] < 500  # a model that knows nothing is at 2,048
    for out in (server, client):
        assert out.count("equal") == 7
        assert "The server was the dealer and could open everything" in out
        assert "semi-honest" in out
        assert "Nothing was encrypted" not in out


def test_randomness_from_a_file_serves_once(bundles: list[Path], tmp_path: Path) -> None:
    """Each party has its own file of a dealing, and not the other one's."""
    write_dealt_files(bundles[0], load_executable_protocol("lean"), 2, tmp_path / "dealt", lambda fraction: None)
    files = [str(tmp_path / "dealt" / f"party{rank}.dealing") for rank in (0, 1)]
    common = ("--protocol", "lean", "--sequences", "2")
    with start_parties(bundles, free_address(), *common, dealer=files) as two:
        for status, out, errors in map(wait_for_exit, two):
            assert (status, errors) == (0, "")
            assert "The randomness was dealt beforehand" in out
            assert "The server was the dealer" not in out
    with start_parties(bundles, free_address(), *common, dealer=files) as two:
        for status, _, errors in map(wait_for_exit, two):
            assert (status, "was used already" in errors) == (2, True)


def test_differing_terms_are_named_at_both_parties(bundles: list[Path]) -> None:
    with start_parties(bundles, free_address(), "--protocol", "lean", sequences=["1", "2"]) as two:
        for status, out, errors in map(wait_for_exit, two):
            assert (status, out) == (1, "")
            assert errors == "pi-sim: the parties differ in number of sequences; start both with the same.\n"


@contextmanager
def running(bundles: list[Path], *arguments: str, **options: list[str]) -> Iterator[list[PartyProcess]]:
    """Yield both parties in the middle of a long run."""
    with start_parties(
        bundles, free_address(), "--protocol", "lean", "--sequences", "2000", *arguments, **options
    ) as two:
        until(lambda: all(is_connected(party) for party in two), two)
        time.sleep(0.3)
        yield two


def until(reached: Callable[[], bool], two: list[PartyProcess]) -> None:
    """Wait for a condition while both parties run."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        assert all(party.is_alive() for party in two), [wait_for_exit(party) for party in two]
        time.sleep(0.05)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_party_that_is_killed_ends_the_other(rank: int, bundles: list[Path]) -> None:
    with running(bundles) as two:
        two[rank].kill()
        status, out, errors = wait_for_exit(two[1 - rank])
    assert (status, out) == (1, "")
    assert re.fullmatch(r"pi-sim: the (other party closed the connection|connection to .* broke \(.*\))\.\n", errors)


def test_an_interrupted_party_ends_both(bundles: list[Path], keys: list[str]) -> None:
    with running(bundles, keys=keys) as two:
        os.kill(two[1].pid, signal.SIGINT)
        (status, _, errors), (interrupted, _, client_errors) = map(wait_for_exit, two)
    assert (status, interrupted) == (1, 130)
    assert re.fullmatch(r"pi-sim: the (other party closed the connection|connection to .* broke \(.*\))\.\n", errors)
    assert client_errors == "pi-sim: interrupted; nothing is left running.\n"


def test_waiting_for_a_stalled_party_ends(bundles: list[Path], keys: list[str]) -> None:
    """When it continues, the connection is closed, and it ends too."""
    with running(bundles, "--timeout", "2", keys=keys) as two:
        os.kill(two[0].pid, signal.SIGSTOP)
        status, _, errors = wait_for_exit(two[1])
        os.kill(two[0].pid, signal.SIGCONT)
        later, _, server_errors = wait_for_exit(two[0])
    assert (status, errors) == (1, "pi-sim: the other party sent nothing for 2 seconds.\n")
    assert (later, server_errors.startswith("pi-sim: the ")) == (1, True)


def test_interfaces_carry_the_counted_bytes(bundles: list[Path], keys: list[str], tmp_path: Path) -> None:
    """Their interfaces carry the payload, and little else: TLS adds 22 bytes to a record, TCP/IP 66 to a segment."""
    paths = [str(tmp_path / f"{rank}.json") for rank in (0, 1)]
    with two_namespaces() as names:
        common = (f"{ADDRESSES[0]}:5000", "--protocol", "lean")
        with start_parties(bundles, *common, namespaces=names, keys=keys, json=paths) as two:
            assert [wait_for_exit(party)[::2] for party in two] == [(0, "")] * 2
        carried = [carried_bytes(name) for name in names]
    for path, (sent, received) in zip(paths, carried, strict=True):
        record = json.loads(Path(path).read_text())
        counted = record["measured"]
        payload = record["payload_bytes"]
        assert counted["bytes"] <= max(payload.values()) - counted["session_bytes"]
        for bytes_counted, bytes_carried in ((payload["sent"], sent), (payload["received"], received)):
            assert bytes_counted < bytes_carried < 1.07 * bytes_counted + 100_000
    assert carried[0] == carried[1][::-1]


def test_a_network_that_breaks_down_ends_both(bundles: list[Path], keys: list[str]) -> None:
    """No connection is closed: both parties end at their time-out."""
    with two_namespaces() as names:
        address = f"{ADDRESSES[0]}:5000"
        common = (bundles, address, "--protocol", "lean", "--sequences", "2000", "--timeout", "2")
        with start_parties(*common, namespaces=names, keys=keys) as two:
            until(lambda: carried_bytes(names[0])[0] > 1_000_000, two)
            ip("-n", names[1], "link", "set", CABLE, "down")
            for status, out, errors in map(wait_for_exit, two):
                assert (status, out) == (1, "")
                assert re.fullmatch(
                    r"pi-sim: the (other party .* nothing for 2 seconds|connection .* broke .*)\.\n", errors
                )


def test_off_the_loopback_a_run_is_encrypted(bundles: list[Path]) -> None:
    with two_namespaces() as names, start_parties(bundles, f"{ADDRESSES[0]}:5000", namespaces=names) as two:
        for status, out, errors in map(wait_for_exit, two):
            assert (status, out) == (2, "")
            assert errors.startswith(f"pi-sim: a run over {ADDRESSES[0]} is encrypted; give --keys")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rendezvous": "127.0.0.1"}, "is not an address"),
        ({"bundle": "nowhere"}, "nowhere is not a bundle of pi-sim export"),
        ({"bundle": "../client"}, "party0.safetensors is missing or damaged"),
        ({"protocol": "crypten"}, "was exported for another kind of protocol; export it again with --protocol"),
        ({"network": "lan"}, "two machines have a network of their own"),
        ({"keys": "nowhere"}, "nowhere/certificate.pem is not a certificate"),
        ({"rendezvous": "no-such-host.invalid:5000"}, "there is no host 'no-such-host.invalid'"),
        ({"protocol": "magic"}, "unknown protocol 'magic'"),
        ({"dealer": "third-party"}, "a third party deals to two processes of one machine only"),
        ({"dealer": "nowhere"}, "there is no file nowhere"),
        ({"json": "README.md/record.json"}, "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, str], sentence: str, bundles: list[Path]) -> None:
    options = {"rank": "0", "rendezvous": free_address(), "bundle": str(bundles[0]), "protocol": "lean", **arguments}
    options["bundle"] = options["bundle"].replace("../client", str(bundles[1]))
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    result = CliRunner().invoke(main, ["run", "party", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_address_in_use_is_one_sentence(bundles: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        words = ["--rank", "0", "--rendezvous", address, "--bundle", str(bundles[0]), "--protocol", "lean"]
        result = CliRunner().invoke(main, ["run", "party", *words])
    assert (result.exit_code, f"cannot listen at {address} (Address already in use)" in result.stderr) == (2, True)
