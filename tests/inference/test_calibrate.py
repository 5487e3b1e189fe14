"""Machine profiles: written and read, refused in one sentence if wrong, and measured by a calibration."""

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
from pi_sim.cost import cost
from pi_sim.cost.cost import Machine, Work
from pi_sim.errors import RunError, UsageError
from pi_sim.inference import calibrate
from pi_sim.records import SecondsEach
from pi_sim.report.terminal import render_machine
from tests.helpers.golden import Golden

PROFILE = Machine(
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
SECONDS_EACH = st.builds(SecondsEach, macs=RATES, elements=RATES, random=RATES, calls=RATES, tuples=RATES, rounds=RATES)
MACHINES = st.builds(Machine, name=st.text(), source=st.text(), seconds_each=SECONDS_EACH)


@pytest.mark.slow
@settings(max_examples=25)
@given(profile=MACHINES, a=WORKS, b=WORKS, rounds=st.integers(0, 1000))
def test_seconds_of_a_machine_add_up(profile: Machine, a: Work, b: Work, rounds: int) -> None:
    apart = profile.seconds(a, rounds) + profile.seconds(b, 0)
    assert profile.seconds(a + b, rounds) == pytest.approx(apart)
    assert profile.seconds(a + b, rounds) >= profile.seconds(a, rounds)


def test_seconds_by_hand() -> None:
    assert PROFILE.seconds(Work(10**10, 10**9, 10**9, 10**5, 10**3), 10**4) == pytest.approx(1 + 1 + 0.4 + 1 + 0.5 + 2)


@settings(max_examples=10)
@given(profile=MACHINES)
def test_a_profile_is_read_as_it_was_written(profile: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("profile") / "machine.json"
    cost.save_profile(profile, path)
    assert cost.load_profile(path) == profile
    assert records.load(path).machine.cpu == records.cpu_name()


def test_without_a_calibration_there_is_no_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert cost.load_profile() is None
    cost.save_profile(PROFILE, cost.profile_path())
    assert cost.profile_path() == tmp_path / "pi-sim" / "machine.json"
    assert cost.load_profile() == PROFILE


def test_a_profile_can_be_a_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(DECLARED)
    profile = cost.load_profile(path)
    assert profile
    assert (profile.name, profile.source, profile.seconds_each) == ("a server", "its maker", PROFILE.seconds_each)


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
        cost.load_profile(path)


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
        cost.load_profile(path)


def test_a_missing_profile_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*; `pi-sim calibrate --out .*` measures this machine"):
        cost.load_profile(tmp_path / "none.json")


def test_reading_a_profile_does_not_import_torch(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    cost.save_profile(PROFILE, path)
    code = f"import pathlib; from pi_sim.cost import cost; cost.load_profile(pathlib.Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", f"import sys; {code}; assert 'torch' not in sys.modules"], check=True)


@given(rates=st.tuples(RATES, RATES, RATES, RATES, RATES))
def test_unit_costs_follow_from_probes(rates: tuple[float, ...]) -> None:
    """A probe for each unit, in which that unit counts most."""
    works = [
        Work(0, 0, 10**6, 1), Work(0, 600, 10**3, 500), Work(0, 600, 10**3, 400, 9),
        Work(0, 10**7, 10**7, 400, 9), Work(10**9, 10**7, 10**7, 90, 3),
    ]  # fmt: skip
    costs = SecondsEach(**dict(zip(("macs", "elements", "random", "calls", "tuples"), rates, strict=True)), rounds=1e-4)
    truth = Machine(name="", source="", seconds_each=costs)
    probes = [(Work(), 1), *((work, 0) for work in works)]
    fitted = calibrate.fit_unit_costs([calibrate.Timing(*probe, truth.seconds(*probe)) for probe in probes])
    learned = truth.model_copy(update={"seconds_each": fitted})
    assert all(truth.seconds(*probe) == pytest.approx(learned.seconds(*probe), rel=1e-6) for probe in probes)


def test_a_disturbed_measurement_is_one_sentence() -> None:
    works = [
        Work(),
        Work(random=10),
        Work(calls=10),
        Work(tuples=10),
        Work(elements=10, calls=10),
        Work(macs=10, elements=10),
    ]
    seconds = [1.0, 1.0, 2.0, 1.0, 1.0, 1.0]
    timings = [calibrate.Timing(work, int(work == Work()), time) for work, time in zip(works, seconds, strict=True)]
    with pytest.raises(RunError, match="other work on this machine disturbed the measurement"):
        calibrate.fit_unit_costs(timings)


@pytest.mark.parties
def test_a_calibration_measures_this_machine() -> None:
    fractions: list[float] = []
    layers = (calibrate.LayerSize(64, 2, 64, 128), calibrate.LayerSize(512, 8, 96, 128))
    profile = calibrate.calibrate(fractions.append, layers, sequences=2)
    units = profile.seconds_each.model_dump()
    assert all(units[unit] > 0 for unit in calibrate.INDISPENSABLE_UNITS)
    assert all(1e-13 < value < 1e-2 for value in units.values() if value)
    assert fractions == [run / 8 for run in range(1, 9)]
    assert "pi-sim calibrate" in profile.source


@pytest.mark.parties
def test_timings_of_a_run_add_up_to_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second of computing belongs to an operation; operations without work take hardly any."""
    outcomes, run_local = [], calibrate.launch.run_local
    monkeypatch.setattr(
        calibrate.launch, "run_local", lambda *a, **k: outcomes.append(run_local(*a, **k)) or outcomes[0]
    )
    lean = calibrate.specs.load_executable_protocol("lean")
    timings = calibrate.time_run(calibrate.LayerSize(32, 2, 16, 64), lean, "first-party", sequences=2)
    computing = [counts["seconds"] - counts["communication_seconds"] for counts in outcomes[0].counts[0]]
    assert 0.5 * sum(computing) / 2 < sum(timing.seconds for timing in timings) <= sum(computing) / 2


@pytest.mark.parametrize(("load", "warning"), [(0.3, None), (10.1, "busy (load 10.1 on 4 cores)")])
def test_a_busy_machine_is_a_warning(load: float, warning: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(calibrate.os, "cpu_count", lambda: 4)
    sentence = calibrate.load_warning()
    assert sentence is None if warning is None else warning in str(sentence)


def test_calibrate_writes_where_estimates_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "calibrate", lambda advance: PROFILE)
    done = CliRunner().invoke(main, ["calibrate", "--force", "--format", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == PROFILE.model_dump()
    assert cost.load_profile() == PROFILE
    other = tmp_path / "other.json"
    assert CliRunner().invoke(main, ["calibrate", "--force", "--out", str(other)]).exit_code == 0
    assert cost.load_profile(other) == PROFILE


def test_a_path_that_cannot_be_written_is_refused_before_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "calibrate", None)
    done = CliRunner().invoke(main, ["calibrate", "--out", "README.md/machine.json"])
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


@pytest.mark.usefixtures("no_terminal")
def test_a_profile_as_a_table(golden: Golden) -> None:
    golden("machine", render_machine(PROFILE, "table"))


def test_a_busy_machines_profile_is_saved_by_force_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate.os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    monkeypatch.setattr(calibrate, "calibrate", lambda advance: PROFILE)
    path = tmp_path / "machine.json"
    refused = CliRunner().invoke(main, ["calibrate", "--out", str(path)])
    assert (refused.exit_code, refused.stdout, path.exists()) == (1, "", False)
    assert "nothing was saved: wait until it is idle, or give --force." in refused.stderr
    assert CliRunner().invoke(main, ["calibrate", "--force", "--out", str(path)]).exit_code == 0
    assert path.exists()
