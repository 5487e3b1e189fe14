"""A record reaches its place whole or not at all, and a place that is no ordinary file stays what it is."""

import os
import threading
from pathlib import Path

import pytest

from pi_sim import records
from pi_sim.errors import UsageError


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    records.write_text(path, "first")
    records.write_text(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_pipe_is_written_through_and_remains(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    records.write_text(pipe, "a record")
    reader.join(timeout=60)
    assert received == ["a record"]
    assert pipe.is_fifo()


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        records.write_text(path, "\ud800")
    assert path.read_text() == "old"


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(UsageError, match=r"record\.json cannot be written"):
        records.check_writable(Path("/proc/nowhere/record.json"))
