"""The file of a sweep: whatever ends it, what was finished is kept, and asked once."""

import csv
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import refused
from test_sweep import LINES, MACHINE, sweep, whole

from pi_sim.sweep import kept, parquet
from pi_sim.sweep.answers import COLUMNS, Answer, read
from pi_sim.sweep.tariff import Tariff

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1)
MAYBE = st.none() | st.integers(0)
ANSWERS = st.builds(
    Answer, CELLS, CELLS, st.integers(1), st.integers(1), MAYBE, st.booleans(), CELLS, st.none() | CELLS, CELLS,
    MAYBE, MAYBE, MAYBE, *(st.none() | st.floats(0, allow_infinity=False),) * 2, st.none() | CELLS,
)  # fmt: skip


@given(answers=st.lists(ANSWERS, max_size=4))
def test_a_line_reads_as_it_was_written(answers: list[Answer]) -> None:
    cells = csv.reader(io.StringIO(kept.lines(answers), newline=""))
    assert [read(dict(zip(COLUMNS, line, strict=True))) for line in cells] == answers


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a sweep that nothing interrupted."""
    path = tmp_path_factory.mktemp("sweep") / "complete.csv"
    fill(path)
    return path.read_bytes()


def fill(path: Path) -> None:
    with kept.opened(path) as table:
        whole().run(table, lambda fraction: None)


@given(share=st.floats(0, 1))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_ends_anywhere_is_completed(share: float, complete: bytes, tmp_path: Path) -> None:
    """A machine that was switched off can leave half a line."""
    path = tmp_path / "torn.csv"
    path.write_bytes(complete[: int(share * len(complete))])
    fill(path)
    assert path.read_bytes() == complete


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Somebody who presses Ctrl-C at the n-th price."""

    def arrange(number: int) -> None:
        asked, total = [], Tariff.total

        def interrupted(self: Tariff, *arguments: Any) -> Any:
            asked.append(self)
            if len(asked) == number:
                signal.raise_signal(signal.SIGINT)
            return total(self, *arguments)

        monkeypatch.setattr(Tariff, "total", interrupted)

    return arrange


@pytest.mark.parametrize("number", [1, 4, 17])
def test_an_interrupted_sweep_goes_on(
    number: int, complete: bytes, tmp_path: Path, impatient: Callable[[int], None]
) -> None:
    path = tmp_path / "sweep.csv"
    impatient(number)
    stopped = sweep("--out", str(path))
    assert stopped.exit_code == 130
    assert f"{path}: what is done is kept" in stopped.stderr
    assert path.read_bytes() == b"\n".join(complete.splitlines()[: 1 + 2 * (number - 1)]) + b"\n"
    assert sweep("--out", str(path)).exit_code == 0
    assert path.read_bytes() == complete


def test_an_interrupted_line_is_not_kept(complete: bytes, tmp_path: Path) -> None:
    """Ctrl-C may come between writing and knowing that it was written."""
    path = tmp_path / "sweep.csv"
    fill(path)

    def write(content: bytes) -> int:
        file.write(content[:9])
        raise KeyboardInterrupt

    with path.open("ab", buffering=0) as file, pytest.raises(KeyboardInterrupt):
        disturbed = SimpleNamespace(write=write, seek=file.seek, truncate=file.truncate)
        kept._append(disturbed, b"a line that is long enough\n", path)  # type: ignore[arg-type]
    assert path.read_bytes() == complete


def test_a_known_line_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sweep.csv"
    sweep("--out", str(path))
    before = path.read_bytes()
    more = sweep("--out", str(path), "--network", "lan", "--network", "wan", "--network", "puma")
    assert f"{LINES * 3 // 2} estimates" in more.stderr
    assert f"; {LINES // 2} new in" in more.stderr
    assert path.read_bytes().startswith(before)
    monkeypatch.setattr(Tariff, "total", None)
    again = sweep("--out", str(path))
    assert (again.exit_code, "new" in again.stderr) == (0, False)


def test_another_machine_is_another_question(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    fill(path)
    with kept.opened(path) as table:
        answers = whole(MACHINE).run(table, lambda fraction: None)
        assert len(table.known) == 2 * LINES
    assert {answer.machine for answer in answers} == {MACHINE.name}


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "notes", "model,size\n", kept.HEADER.replace("rounds", "round"), kept.HEADER + "gelu_ln\n"]
)
def test_a_file_of_anything_else_stays_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    sentence = refused(sweep("--out", str(path)))
    assert str(path) in sentence
    assert sentence.count("\n") == 1
    assert path.read_text() == text


def test_a_device_is_written_to() -> None:
    assert sweep("--out", "/dev/null").exit_code == 0
    assert "/dev/full cannot be written" in refused(sweep("--out", "/dev/full"))


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'pi-sim[parquet]'" in refused(sweep("--out", str(tmp_path / "sweep.parquet")))
    assert not list(tmp_path.iterdir())


def test_parquet_has_the_lines_of_csv(complete: bytes, tmp_path: Path, impatient: Callable[[int], None]) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "sweep.parquet"
    impatient(4)
    assert sweep("--out", str(path)).exit_code == 130
    assert not path.exists()
    assert sweep("--out", str(path)).exit_code == 0
    assert kept.HEADER + kept.lines(parquet.read(path)) == complete.decode()
    assert sweep("--out", str(path), "--network", "puma").exit_code == 0
    assert len(parquet.read(path)) == LINES * 3 // 2
    assert list(tmp_path.iterdir()) == [path]
