"""Machines: profiles are kept and read, a wrong one is one sentence, and calibration finds what a machine needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_sim import records
from pi_sim.cli import main
from pi_sim.cost import machine
from pi_sim.cost.cost import Work
from pi_sim.cost.machine import Machine
from pi_sim.errors import RunError, UsageError
from pi_sim.records import SecondsEach
from pi_sim.report.terminal import render_machine
from pi_sim.run import calibrate
from tests.helpers.golden import Golden

MINE = Machine(
    name="mine",
    source="measured once",
    seconds_each=SecondsEach(macs=1e-10, elements=1e-9, random=4e-10, calls=1e-5, tuples=5e-4, rounds=2e-4),
)
DECLARED = """
name = "a server"
source = "its maker"
[seconds_each]
macs = 1e-10
elements = 1e-9
random = 4e-10
calls = 1e-5
tuples = 5e-4
rounds = 2e-4
"""
WORKS = st.builds(Work, *(st.integers(0, 10**9),) * 5)
RATES = st.floats(1e-12, 1e-3)
EACH = st.builds(SecondsEach, macs=RATES, elements=RATES, random=RATES, calls=RATES, tuples=RATES, rounds=RATES)
MACHINES = st.builds(Machine, name=st.text(), source=st.text(), seconds_each=EACH)


@pytest.mark.slow
@settings(max_examples=25)
@given(each=MACHINES, a=WORKS, b=WORKS, rounds=st.integers(0, 1000))
def test_seconds_of_a_machine_add_up(each: Machine, a: Work, b: Work, rounds: int) -> None:
    apart = each.seconds(a, rounds) + each.seconds(b, 0)
    assert each.seconds(a + b, rounds) == pytest.approx(apart)
    assert each.seconds(a + b, rounds) >= each.seconds(a, rounds)


def test_seconds_by_hand() -> None:
    assert MINE.seconds(Work(10**10, 10**9, 10**9, 10**5, 10**3), 10**4) == pytest.approx(1 + 1 + 0.4 + 1 + 0.5 + 2)


@settings(max_examples=10)
@given(each=MACHINES)
def test_a_profile_is_read_as_it_was_written(each: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("profile") / "machine.json"
    machine.save_profile(each, path)
    assert machine.load_profile(path) == each
    assert records.load(path).machine.cpu == records.cpu_name()


def test_without_a_calibration_there_is_no_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert machine.load_profile() is None
    machine.save_profile(MINE, machine.profile_path())
    assert machine.profile_path() == tmp_path / "pi-sim" / "machine.json"
    assert machine.load_profile() == MINE


def test_a_profile_can_be_written_down(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(DECLARED)
    found = machine.load_profile(path)
    assert found
    assert (found.name, found.source, found.seconds_each) == ("a server", "its maker", MINE.seconds_each)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("macs", "mac", r"server\.toml.*key 'seconds_each\.macs': Field required"),
        ("rounds = 2e-4", "rounds = 2e-4\nspeed = 1", r"server\.toml.*key 'seconds_each\.speed'"),
        ("1e-5", "-1e-5", r"server\.toml.*key 'seconds_each\.calls'"),
        ("1e-5", "nan", r"server\.toml.*key 'seconds_each\.calls'"),
        ("[seconds_each]", "[seconds_each", r"server\.toml is not valid TOML"),
    ],
)
def test_a_wrong_profile_names_its_key(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(DECLARED.replace(old, new))
    with pytest.raises(UsageError, match=sentence):
        machine.load_profile(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", r"machine\.json is not a pi-sim record;"),
        ("[]", r"machine\.json is not a pi-sim record;"),
        ('{"version": 2, "kind": "run"}', r"machine\.json is a record of kind run, not machine"),
        ('{"version": 2, "kind": "machine"}', r"machine\.json has no name;"),
        ('{"version": 2, "kind": "machine", "name": 1, "source": ""}', r"machine\.json cannot be read, key 'name'"),
    ],
)
def test_a_damaged_profile_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        machine.load_profile(path)


def test_a_profile_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*; `pi-sim calibrate --out .*` measures this machine"):
        machine.load_profile(tmp_path / "none.json")


def test_reading_a_profile_does_not_import_torch(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    machine.save_profile(MINE, path)
    code = f"import pathlib; from pi_sim.cost import machine; machine.load_profile(pathlib.Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", f"import sys; {code}; assert 'torch' not in sys.modules"], check=True)


@given(rates=st.tuples(RATES, RATES, RATES, RATES, RATES))
def test_what_probes_take_tells_what_each_unit_takes(rates: tuple[float, ...]) -> None:
    """A probe for each unit, in which that unit counts most."""
    works = [
        Work(0, 0, 10**6, 1), Work(0, 600, 10**3, 500), Work(0, 600, 10**3, 400, 9),
        Work(0, 10**7, 10**7, 400, 9), Work(10**9, 10**7, 10**7, 90, 3),
    ]  # fmt: skip
    each = SecondsEach(**dict(zip(("macs", "elements", "random", "calls", "tuples"), rates, strict=True)), rounds=0)
    truth = Machine(name="", source="", seconds_each=each)
    learned = calibrate.fit_unit_costs(works, [truth.seconds(work, 0) for work in works])
    assert all(truth.seconds(work, 0) == pytest.approx(seconds(learned, work), rel=1e-6) for work in works)


def seconds(each: dict[str, float], work: Work) -> float:
    return sum(each[unit] * getattr(work, unit) for unit in each)


def test_a_machine_that_was_busy_is_said_to_be() -> None:
    works = [Work(random=10), Work(calls=10), Work(tuples=10), Work(elements=10, calls=10), Work(macs=10, elements=10)]
    with pytest.raises(RunError, match="other work on this machine disturbed the measurement"):
        calibrate.fit_unit_costs(works, [1.0, 2.0, 1.0, 1.0, 1.0])


@pytest.mark.parties
def test_a_calibration_finds_what_this_machine_needs() -> None:
    told: list[float] = []
    found = calibrate.calibrate(told.append, shrink=2, passes=4)
    assert all(each > 0 for each in found.seconds_each.model_dump().values())
    assert told == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert "pi-sim calibrate" in found.source


@pytest.mark.parties
def test_a_calibration_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "BUDGET_S", 0.0)
    told: list[float] = []
    calibrate.calibrate(told.append, shrink=2, passes=1000)
    assert told == [0.001, 1.0]


@pytest.mark.parametrize(("load", "said"), [(0.3, None), (10.1, "busy (load 10.1 on 4 cores)")])
def test_a_busy_machine_is_told_of(load: float, said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(calibrate.os, "cpu_count", lambda: 4)
    sentence = calibrate.load_warning()
    assert sentence is None if said is None else said in str(sentence)


def test_calibrate_writes_where_estimates_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "calibrate", lambda advance: MINE)
    done = CliRunner().invoke(main, ["calibrate", "--format", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == MINE.model_dump()
    assert machine.load_profile() == MINE
    other = tmp_path / "other.json"
    assert CliRunner().invoke(main, ["calibrate", "--out", str(other)]).exit_code == 0
    assert machine.load_profile(other) == MINE


def test_a_place_that_cannot_be_written_is_said_before_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "calibrate", None)
    done = CliRunner().invoke(main, ["calibrate", "--out", "README.md/machine.json"])
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


@pytest.mark.usefixtures("no_terminal")
def test_a_profile_as_a_table(golden: Golden) -> None:
    golden("machine", render_machine(MINE, "table"))
