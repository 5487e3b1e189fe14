"""Dealt files: written completely or not at all, for one graph and protocol, used once."""

import mmap
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.cli import main
from pi_sim.errors import RunError, UsageError
from pi_sim.inference import dealing
from pi_sim.inference.two_party import export_bundle
from pi_sim.mpc.dealer import dealt_file
from pi_sim.mpc.dealer.correlations import beaver_triple
from pi_sim.mpc.dealer.dealers import RunIdentity
from pi_sim.mpc.dealer.dealt_file import Header, read_header
from pi_sim.mpc.dealer.sources import CorrelationItem, Demand, Source, raw_bytes
from pi_sim.specs import load_executable_protocol
from pi_sim.zoo.source import ModelSource
from tests.helpers.file_size_limit import file_size_limit

IDENTITY = RunIdentity("graph", "protocol")
TRIPLE = beaver_triple("multiply", (50, 100), (100,))
DEMAND = Demand((), (CorrelationItem(TRIPLE, ()),))
PAYLOAD = 8 * 50 * 100
LEAN = load_executable_protocol("lean")


@pytest.fixture
def dealt(tmp_path: Path) -> Path:
    """Deal for two sequences."""
    dealt_file.write_dealing(tmp_path / "dealt", DEMAND, IDENTITY, 2)
    return tmp_path / "dealt"


def source(folder: Path, rank: int, sequences: int = 2) -> Source:
    return dealt_file.open_dealt_file(folder, rank, IDENTITY, sequences).open_source(bytes(16))


def test_each_party_reads_its_shares_of_every_triple(dealt: Path) -> None:
    server, client = source(dealt, 0), source(dealt, 1)
    for _ in range(2):
        a, b, product = (x + y for x, y in zip(server.deal(TRIPLE), client.deal(TRIPLE), strict=True))
        assert torch.equal(a * b, product)
    assert server.offline_bytes == client.offline_bytes == 2 * PAYLOAD
    with pytest.raises(RunError, match="ended too soon"):
        server.deal(TRIPLE)


@given(st.lists(st.integers(0, 3 * mmap.PAGESIZE), max_size=9), st.integers(1, 2 * mmap.PAGESIZE))
def test_a_file_is_read_through_windows_and_keeps_its_contents(lengths: list[int], window: int) -> None:
    content = random.Random(window).randbytes(5 + sum(lengths))
    with tempfile.NamedTemporaryFile() as file, patch.object(dealt_file, "WINDOW_BYTES", window):
        Path(file.name).write_bytes(content)
        shares = dealt_file.MappedShares(Path(file.name), 5)
        tensors = [shares.take(length) for length in lengths]
        assert b"".join(bytes(raw_bytes(tensor)) for tensor in tensors) == content[5:]
        for tensor in tensors:
            tensor.zero_()
        assert Path(file.name).read_bytes() == content
        with pytest.raises(RunError, match="ended too soon"):
            shares.take(1)


def test_a_file_that_cannot_be_mapped_is_one_sentence(dealt: Path) -> None:
    party = source(dealt, 0)
    with patch("mmap.mmap", side_effect=OSError(12, "Cannot allocate memory")), pytest.raises(RunError, match="mapped"):
        party.deal(TRIPLE)


def test_files_are_for_their_owner_alone_and_party_1s_is_a_seed(tmp_path: Path) -> None:
    sizes = dealt_file.write_dealing(tmp_path / "dealt", DEMAND, IDENTITY, 2)
    paths = [tmp_path / "dealt" / f"party{rank}.dealing" for rank in (0, 1)]
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600, 0o600]
    assert [path.stat().st_size for path in paths] == sizes
    server, client = map(read_header, paths)
    assert (server.payload, client.payload) == (2 * PAYLOAD, 0)
    assert server.number == client.number
    assert server.seed != client.seed
    assert sizes[0] - len(server.line) == 2 * PAYLOAD
    assert sizes[1] == len(client.line)


@pytest.mark.parametrize("content", [b"[" * 4096, b"{}", b"\xff\n"])
def test_a_file_that_deal_did_not_write_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "party0.dealing").write_bytes(content)
    with pytest.raises(UsageError, match=r"party0\.dealing"):
        dealt_file.read_usable_header(tmp_path, 0, IDENTITY, 1)


@pytest.mark.slow
def test_a_protocol_that_cannot_run_is_not_dealt_for(tmp_path: Path) -> None:
    export_bundle(ModelSource.parse("relu_nonorm", "tiny"), 8, tmp_path / "bundle", LEAN)
    text = (
        Path("protocols/lean.toml").read_text(encoding="utf-8").replace('precision_bits" = 16', 'precision_bits" = 20')
    )
    (tmp_path / "fine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"encoder\.precision_bits"):
        dealing.write_dealt_files(
            tmp_path / "bundle",
            load_executable_protocol(str(tmp_path / "fine.toml")),
            1,
            tmp_path / "dealt",
            lambda fraction: None,
        )
    assert not (tmp_path / "dealt").exists()


def test_two_dealings_have_nothing_in_common(tmp_path: Path) -> None:
    for name in ("first", "second"):
        dealt_file.write_dealing(tmp_path / name, DEMAND, IDENTITY, 1)
    first, second = ((tmp_path / name / "party0.dealing").read_bytes() for name in ("first", "second"))
    assert first[-64:] != second[-64:]
    headers = [read_header(tmp_path / name / f"party{rank}.dealing") for name in ("first", "second") for rank in (0, 1)]
    assert (len({header.seed for header in headers}), len({header.number for header in headers})) == (4, 2)


def refusal(folder: Path, rank: int = 0, identity: RunIdentity = IDENTITY, sequences: int = 2) -> str:
    with pytest.raises(UsageError) as caught:
        dealt_file.read_usable_header(folder, rank, identity, sequences)
    return str(caught.value)


@pytest.mark.parametrize(
    ("identity", "sequences", "sentence"),
    [
        (RunIdentity("another", "protocol"), 2, "was dealt for another graph"),
        (RunIdentity("graph", "another"), 2, "was dealt for another protocol"),
        (RunIdentity("graph", "protocol", "9.9"), 2, "this is 9.9; deal again"),
        (IDENTITY, 3, "has randomness for 2 sequences, not for 3"),
    ],
)
def test_a_file_serves_the_run_it_was_dealt_for(
    dealt: Path, identity: RunIdentity, sequences: int, sentence: str
) -> None:
    assert sentence in refusal(dealt, identity=identity, sequences=sequences)
    dealt_file.read_usable_header(dealt, 0, IDENTITY, 1)


def test_a_party_needs_its_own_file(dealt: Path) -> None:
    assert "is party 0's file of a dealing; give party 1 its own" in refusal(dealt / "party0.dealing", rank=1)
    dealt_file.read_usable_header(dealt / "party1.dealing", 1, IDENTITY, 2)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x"])
def test_a_damaged_file_is_refused(dealt: Path, change: Callable[[bytes], bytes]) -> None:
    path = dealt / "party0.dealing"
    path.write_bytes(change(path.read_bytes()))
    assert "is damaged" in refusal(dealt)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b'{"format": 3}\n', b"\xff" * 5000, b"[1]"])
def test_a_malformed_header_is_one_sentence(dealt: Path, content: bytes) -> None:
    (dealt / "party0.dealing").write_bytes(content)
    assert "party0.dealing" in refusal(dealt)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path)


def test_a_file_serves_once(dealt: Path) -> None:
    source(dealt, 0)
    assert not (dealt / "party0.dealing").exists()
    assert (dealt / "party0.dealing.used").exists()
    assert "was used already" in refusal(dealt)


def test_a_copy_of_a_used_file_is_refused(dealt: Path) -> None:
    copy = shutil.copytree(dealt, dealt.with_name("copy"))
    source(dealt, 0)
    assert "was used already" in refusal(copy)
    (dealt / "party0.dealing.used").rename(dealt / "party0.dealing")
    assert "was used already" in refusal(dealt)
    dealt_file.read_usable_header(copy, 1, IDENTITY, 2)  # the other party's is another file


def test_only_one_of_two_processes_uses_a_file(dealt: Path) -> None:
    first, second = (dealt_file.open_dealt_file(dealt, 0, IDENTITY, 2) for _ in range(2))
    first.open_source(bytes(16))
    with pytest.raises(UsageError, match="was used already"):
        second.open_source(bytes(16))


def test_a_use_that_cannot_be_marked_is_refused(dealt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be marked as used"):
        dealt_file.mark_used(dealt / "party0.dealing", read_header(dealt / "party0.dealing"))
    assert (dealt / "party0.dealing").exists()


def test_a_dealing_is_not_overwritten(dealt: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        dealt_file.write_dealing(dealt, DEMAND, IDENTITY, 2)


def test_an_interrupted_dealing_leaves_nothing(tmp_path: Path) -> None:
    def impatient(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dealt_file.write_dealing(tmp_path / "dealt", DEMAND, IDENTITY, 2, impatient)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with file_size_limit(10_000), pytest.raises(UsageError, match="cannot be written"):
        dealt_file.write_dealing(tmp_path / "dealt", DEMAND, IDENTITY, 2)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the bundle of a shipped model."""
    return export_bundle(
        ModelSource.parse("relu_nonorm", "tiny"), 8, tmp_path_factory.mktemp("export") / "bundle", LEAN
    ).folder


@pytest.mark.slow
def test_ctrl_c_while_dealing_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pi_sim", "deal", "--bundle", str(exported), "--protocol", "lean"]
    command += ["--sequences", "100000", "--out", str(tmp_path / "dealt")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert (process.returncode, "Traceback" in errors) == (130, False)
    assert not list(tmp_path.iterdir())


def deal(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["deal", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["run", "two-party", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return result.stderr


@pytest.mark.slow
def test_a_dealing_that_does_not_serve_is_refused_before_anything_starts(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "dealt"
    output = deal("--bundle", exported, "--protocol", "lean", "--sequences", 2, "--out", out)
    assert f"{(out / 'party0.dealing').stat().st_size:,} bytes in party0.dealing" in output
    options = ("--bundle", exported, "--dealer", out)
    assert "was exported for another kind of protocol" in refused(*options)
    assert "for 2 sequences, not for 3" in refused(*options, "--protocol", "lean", "--sequences", 3)
    deal("--bundle", exported, "--protocol", "lean", "--out", tmp_path / "other")
    shutil.copy(tmp_path / "other" / "party1.dealing", out)
    assert "of different dealings" in refused(*options, "--protocol", "lean")
    assert "there is no folder" in refused("--bundle", exported, "--protocol", "lean", "--dealer", tmp_path / "nothing")


@pytest.mark.slow
def test_a_dealing_for_other_kernels_is_refused(exported: Path, tmp_path: Path) -> None:
    """A changed kernel needs another payload, although graph, protocol and version are the same."""
    deal("--bundle", exported, "--protocol", "lean", "--out", tmp_path / "dealt")
    path = tmp_path / "dealt" / "party0.dealing"
    header = read_header(path)
    fields = {**header.model_dump(), "payload": header.payload + 8}
    path.write_bytes(Header(**fields).line + path.read_bytes()[len(header.line) :] + bytes(8))
    assert "for other kernels" in refused("--bundle", exported, "--protocol", "lean", "--dealer", tmp_path / "dealt")
