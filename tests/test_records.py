"""Atomic files, and records: typed, compact, and with the command that made them."""

import json
import os
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from pi_sim import files, records
from pi_sim.cli import main
from pi_sim.cost import census
from pi_sim.errors import UsageError
from pi_sim.records import MachineRecord, RunRecord, TrainingRecord
from pi_sim.records.envelope import layout_json
from tests.helpers.sample_records import run_record, training_record


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    files.write_text(path, "first")
    files.write_text(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_pipe_is_written_through_and_remains(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    files.write_text(pipe, "a record")
    reader.join(timeout=60)
    assert received == ["a record"]
    assert pipe.is_fifo()


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud800")
    assert path.read_text() == "old"


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(UsageError, match=r"record\.json cannot be written"):
        files.check_writable(Path("/proc/nowhere/record.json"))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, record = tmp_path / "run.json", RunRecord.model_validate(run_record())
    records.save(path, record)
    found = records.load(path)
    assert found == records.stamp(record)
    assert (found.argv, found.code) == (None, records.code_fingerprint())
    assert found.commit is None or len(found.commit) == 40


def test_a_record_holds_its_command_line() -> None:
    words = ["estimate", "--model", "relu_nonorm", "--seq-len", "8", "--format", "json"]
    record = json.loads(CliRunner().invoke(main, words).stdout)
    assert record["argv"] == ["pi-sim", *words]
    assert record["kind"] == "estimate"
    assert record["code"] == records.code_fingerprint()


def test_the_price_cache_and_records_share_a_fingerprint() -> None:
    assert census.code_fingerprint is records.code_fingerprint


def test_every_element_of_a_list_is_on_one_line() -> None:
    curve = [(step, 3.0) for step in range(100)]
    text = records.dumps(TrainingRecord.model_validate(training_record("gelu_ln", loss_curve=curve)))
    assert json.loads(text)["loss_curve"] == [list(point) for point in curve]
    assert max(map(len, text.splitlines())) <= 121
    assert len(text.splitlines()) < 90
    text = records.dumps(RunRecord.model_validate(run_record()))
    lines = [line for line in text.splitlines() if line.startswith('  {"module"')]
    assert len(lines) == len(run_record()["rows"])
    assert all(json.loads(line.rstrip(",")) for line in lines)


def test_another_kind_of_record_is_refused(tmp_path: Path) -> None:
    records.save(tmp_path / "run.json", RunRecord.model_validate(run_record()))
    with pytest.raises(UsageError, match=r"run\.json is a record of kind run, not machine; choose another file\."):
        records.load(tmp_path / "run.json", MachineRecord)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": 1}, "is a record of version 1, this pi-sim reads version 2; make it again or remove it."),
        ({"kind": "page"}, "is not a pi-sim record; make it again or remove it."),
        ({"kind": ["run"]}, "is not a pi-sim record; make it again or remove it."),
        ({"sequences": "many"}, "cannot be read, key 'sequences': Input should be a valid integer"),
        ({"elsewhere": 1}, "cannot be read, key 'elsewhere': Extra inputs are not permitted; make it again"),
    ],
)
def test_an_old_or_damaged_record_is_one_sentence(changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    records.save(path, RunRecord.model_validate(run_record()))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UsageError) as error:
        records.load(path)
    assert str(error.value).startswith(str(path))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_committed_records_are_read_and_written_alike() -> None:
    """Committed records have a command, and the layout of `dumps`; they may lack fields that came later."""
    paths = [*Path("reports/records").rglob("*.json"), *Path("models/weights").glob("*/record.json")]
    assert len(paths) > 80
    for path in paths:
        record = records.load(path)
        assert record.argv is not None
        assert record.argv[0] == "pi-sim"
        fields = record.model_dump(mode="json", exclude_unset=True)
        assert path.read_text(encoding="utf-8") == layout_json(fields) + "\n"
