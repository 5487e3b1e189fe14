"""Sweeps: every line is an estimate, and whatever ends a sweep, what was finished is stored."""

import csv
import io
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pi_sim import specs
from pi_sim.cli import json_help
from pi_sim.cost.census import Census
from pi_sim.cost.cost import Machine
from pi_sim.cost.estimate import Estimate, estimate_model
from pi_sim.cost.pricing import price_census, resolve_protocol
from pi_sim.errors import MissingDependencyError, UsageError
from pi_sim.graph.ops import Op
from pi_sim.grid import sweep as sweep_module
from pi_sim.grid import table
from pi_sim.grid.sweep import PriceTable, Scenario, Sweep, list_scenarios, make_price_tables
from pi_sim.grid.table import COLUMNS, SweepRow, parse_row
from pi_sim.network import PRESETS, Network
from pi_sim.records import SecondsEach
from pi_sim.report.perplexities import known_perplexities
from pi_sim.resolution import resolve_models, resolve_protocols
from pi_sim.zoo.source import ModelSource
from tests.helpers.cli import invoke, python, refused

MACHINE = Machine(
    name="a machine, written down",
    source="a test",
    seconds_each=SecondsEach(macs=1.1e-9, elements=1.3e-9, random=1.7e-9, calls=1.9e-6, rounds=2.3e-5),
)
MODELS = ("gelu_ln", "relu_nonorm")
GRID = ["--model", "gelu_ln", "--model", "relu_nonorm", "--seq-len", "8", "--seq-len", "999", "--past", "4"]
PROTOCOLS = ["--protocol", "crypten", "--protocol", "sigma", "--protocol", "bolt"]
LINES = 2 * 3 * 3 * 2
"""Designs, questions, protocols, networks."""


def full_sweep(machine: Machine | None = None) -> Sweep:
    """Return the sweep of `GRID` and `PROTOCOLS`."""
    sources = resolve_models(MODELS, ["tiny"])
    scenarios = list_scenarios(sources, lengths=(8, 999), pasts=(4,))
    prices = make_price_tables(resolve_protocols(["crypten", "sigma", "bolt"]))
    return Sweep(scenarios, prices, [PRESETS["lan"], PRESETS["wan"]], machine, known_perplexities([], sources))


def run(sweep: Sweep) -> list[SweepRow]:
    return sweep.run(table.ResumableCsv(lambda text: None), lambda fraction: None)


def sweep(*arguments: str) -> Result:
    return invoke("sweep", *GRID, *PROTOCOLS, *arguments)


def one(answer: SweepRow, machine: Machine | None) -> Estimate:
    """The estimate that an answer is a line of."""
    length, links = answer.seq_len if answer.past is None else None, [PRESETS[answer.network]]
    source, protocol = ModelSource.parse(answer.model, answer.size), resolve_protocol(answer.protocol)
    return estimate_model(source, protocol, length, links, past=answer.past, machine=machine)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [None, MACHINE])
def test_every_line_is_the_estimate(machine: Machine | None) -> None:
    answers = run(full_sweep(machine))
    assert len(answers) == LINES
    for answer in answers:
        if answer.reason:
            with pytest.raises(UsageError) as error:
                one(answer, machine)
            assert answer.reason == str(error.value)
        else:
            same(answer, one(answer, machine))
    assert {answer.protocol for answer in answers if answer.reason is None} == {"crypten", "sigma"}


def same(answer: SweepRow, expected: Estimate) -> None:
    """Exactly, floating point and all."""
    total = expected.to_json()["total"]
    by_network = {"seconds", "first_query_seconds"}
    keys = total.keys() & set(SweepRow._fields) - by_network
    assert {key: getattr(answer, key) for key in keys} == {key: total[key] for key in keys}
    shown = by_network if total["compute_seconds"] is not None else set[str]()
    assert {key: getattr(answer, key) for key in shown} == {key: total[key][answer.network] for key in shown}
    network_only = replace(expected, machine=None).to_json()["total"]
    assert answer.network_seconds == network_only["seconds"][answer.network]
    assert answer.first_query_network_seconds == network_only["first_query_seconds"][answer.network]
    if total["compute_seconds"] is None:
        assert answer.seconds is answer.first_query_seconds is None
    assert [answer.server_bytes, answer.client_bytes] == list(total["bytes_by_party"])
    assert answer.session_bytes == expected.session_bytes


OPS = st.builds(
    Op,
    st.sampled_from(["relu", "softmax", "gelu", "layernorm"]),
    st.tuples(st.tuples(st.integers(1, 9), st.integers(1, 10**6))),
    st.just((True,)),
)
CENSUSES = st.builds(
    Census,
    st.dictionaries(st.tuples(st.sampled_from(["h.0", "h.1.mlp"]), OPS), st.integers(1, 10**9), max_size=9),
    st.just(frozenset[str]()),
)
NETWORKS = st.builds(Network, st.text("abc", min_size=1), st.floats(0, 1), st.floats(1, 1e12), st.just("a test"))


@given(census=CENSUSES, network=NETWORKS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_census_sums_as_its_estimate_does(
    census: Census, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep sums by operation, the estimate by row; both round nothing."""
    monkeypatch.setattr(sweep_module, "scenario_census", lambda *_: (1, census))
    sigma = PriceTable(resolve_protocol("sigma"))
    (answer,) = run(Sweep([Scenario(ModelSource.parse("relu_nonorm", "tiny"), 1)], [sigma], [network]))
    expected = Estimate("a", "b", "sigma", 1, price_census(census, sigma.protocol), frozenset(), [network])
    assert (answer.rounds, answer.bytes) == (expected.total.rounds, expected.total.bytes)
    assert answer.network_seconds == expected.seconds(expected.overall)[network.name]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "gelu"], "unknown model 'gelu'"),
        (["--size", "huge"], "unknown size 'huge'"),
        (["--protocol", "cript"], "unknown protocol 'cript'"),
        (["--network", "moon"], "unknown network 'moon'"),
        (["--report", "no.md", "--records", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_a_name_that_does_not_exist_ends_it_before_it_begins(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(invoke("sweep", *arguments, "--out", "sweep.csv"))
    assert not (tmp_path / "sweep.csv").exists()


def test_two_protocols_of_one_name_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(specs.find_file("protocols", "crypten").read_text())
    assert "both called crypten" in refused(invoke("sweep", "--protocol", "crypten", "--protocol", str(other)))


def test_a_model_with_a_config_has_one_size() -> None:
    scenarios = list_scenarios(resolve_models(["bert-base", "gelu_ln"], ["tiny", "gpt2"]), batches=(1, 2))
    assert [scenario.key[:4] for scenario in scenarios] == [
        ("bert-base", "own", 512, 1),
        ("bert-base", "own", 512, 2),
        ("gelu_ln", "tiny", 128, 1),
        ("gelu_ln", "tiny", 128, 2),
        ("gelu_ln", "gpt2", 128, 1),
        ("gelu_ln", "gpt2", 128, 2),
    ]


@pytest.mark.slow
def test_lines_go_to_standard_output_without_a_file() -> None:
    result = sweep()
    assert result.stdout == table.HEADER + table.csv_lines(run(full_sweep()))
    assert f"{LINES} estimates" in result.stderr


def test_a_missing_package_is_no_reason_why_there_is_no_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be kept, and believed when the package is there."""

    def charge(*_: object) -> None:
        raise MissingDependencyError("CrypTen cannot be imported.")

    monkeypatch.setattr(sweep_module, "price_op", charge)
    assert "CrypTen cannot be imported" in refused(sweep("--out", str(tmp_path / "sweep.csv")))
    assert (tmp_path / "sweep.csv").read_text() == table.HEADER


@pytest.mark.slow
def test_known_answers_import_neither_torch_nor_pandas() -> None:
    arguments = ["sweep", "--model", "relu_nonorm", "--seq-len", "8", *PROTOCOLS]
    first = invoke(*arguments)
    code = f"import sys; from pi_sim.cli import main; main({arguments}, standalone_mode=False)"
    again = python(f"{code}; assert not {{'torch', 'pandas', 'numpy', 'matplotlib'}} & set(sys.modules)")
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout


def test_every_column_is_explained() -> None:
    assert tuple(json_help.SWEEP) == COLUMNS


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1)
MAYBE = st.none() | st.integers(0)
ANSWERS = st.builds(
    SweepRow, CELLS, CELLS, st.integers(1), st.integers(1), MAYBE, st.booleans(), CELLS, st.none() | CELLS, CELLS,
    *(MAYBE,) * 7, *(st.none() | st.floats(0, allow_infinity=False),) * 6, st.none() | CELLS,
)  # fmt: skip


@given(answers=st.lists(ANSWERS, max_size=4))
def test_a_line_reads_as_it_was_written(answers: list[SweepRow]) -> None:
    cells = csv.reader(io.StringIO(table.csv_lines(answers), newline=""))
    assert [parse_row(dict(zip(COLUMNS, line, strict=True))) for line in cells] == answers


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a sweep that nothing interrupted."""
    path = tmp_path_factory.mktemp("sweep") / "complete.csv"
    fill(path)
    return path.read_bytes()


def fill(path: Path) -> None:
    with table.open_csv(path) as lines:
        full_sweep().run(lines, lambda fraction: None)


@pytest.mark.slow
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
        calls, total = [], PriceTable.total

        def interrupted(self: PriceTable, *arguments: Any) -> Any:
            calls.append(self)
            if len(calls) == number:
                signal.raise_signal(signal.SIGINT)
            return total(self, *arguments)

        monkeypatch.setattr(PriceTable, "total", interrupted)

    return arrange


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 4, 17])
def test_an_interrupted_sweep_goes_on(
    number: int, complete: bytes, tmp_path: Path, impatient: Callable[[int], None]
) -> None:
    path = tmp_path / "sweep.csv"
    impatient(number)
    stopped = sweep("--out", str(path))
    assert stopped.exit_code == 130
    assert f"{path}: finished lines are kept" in stopped.stderr
    assert path.read_bytes() == b"\n".join(complete.splitlines()[: 1 + 2 * (number - 1)]) + b"\n"
    assert sweep("--out", str(path)).exit_code == 0
    assert path.read_bytes() == complete


@pytest.mark.slow
def test_an_interrupted_line_is_not_kept(complete: bytes, tmp_path: Path) -> None:
    """Ctrl-C may come between writing and knowing that it was written."""
    path = tmp_path / "sweep.csv"
    fill(path)

    def write(content: bytes) -> int:
        file.write(content[:9])
        raise KeyboardInterrupt

    with path.open("ab", buffering=0) as file, pytest.raises(KeyboardInterrupt):
        disturbed = SimpleNamespace(write=write, seek=file.seek, truncate=file.truncate)
        table._append_or_restore(disturbed, b"a line that is long enough\n", path)
    assert path.read_bytes() == complete


def test_a_known_line_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sweep.csv"
    sweep("--out", str(path))
    before = path.read_bytes()
    more = sweep("--out", str(path), "--network", "lan", "--network", "wan", "--network", "puma")
    assert f"{LINES * 3 // 2} estimates" in more.stderr
    assert f"; {LINES // 2} new in" in more.stderr
    assert path.read_bytes().startswith(before)
    monkeypatch.setattr(PriceTable, "total", None)
    again = sweep("--out", str(path))
    assert (again.exit_code, "new" in again.stderr) == (0, False)


def test_another_machine_is_another_question(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    fill(path)
    with table.open_csv(path) as lines:
        answers = full_sweep(MACHINE).run(lines, lambda fraction: None)
        assert len(lines.rows) == 2 * LINES
    assert {answer.machine for answer in answers} == {MACHINE.name}


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "notes", "model,size\n", table.HEADER.replace("rounds", "round"), table.HEADER + "gelu_ln\n"]
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


@pytest.mark.slow
def test_parquet_has_the_lines_of_csv(complete: bytes, tmp_path: Path, impatient: Callable[[int], None]) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "sweep.parquet"
    impatient(4)
    assert sweep("--out", str(path)).exit_code == 130
    assert not path.exists()
    assert sweep("--out", str(path)).exit_code == 0
    assert table.HEADER + table.csv_lines(table.read_parquet(path)) == complete.decode()
    assert sweep("--out", str(path), "--network", "puma").exit_code == 0
    assert len(table.read_parquet(path)) == LINES * 3 // 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_budget_of_perplexity_and_its_front(tmp_path: Path) -> None:
    grid = ("--model", "gelu_ln", "--model", "relu_nonorm", "--model", "bert-tiny", "--seq-len", "8")
    rows = list(csv.DictReader(io.StringIO(invoke("sweep", *grid, "--network", "wan").stdout)))
    known = {row["model"]: float(row["perplexity"]) for row in rows if row["perplexity"]}
    assert set(known) == {"gelu_ln", "relu_nonorm"}
    limit = str(known["gelu_ln"] + 1)
    limited = invoke("sweep", *grid, "--network", "wan", "--max-perplexity", limit)
    assert {row["model"] for row in csv.DictReader(io.StringIO(limited.stdout))} == {"gelu_ln"}
    assert "the lowest is" in refused(invoke("sweep", *grid, "--max-perplexity", "2"))
    protocols = ("--protocol", "crypten", "--protocol", "sigma")
    front = json.loads(invoke("sweep", *grid, *protocols, "--network", "wan", "--pareto", "--format", "json").stdout)
    assert {row["protocol"] for row in front} == {"sigma"}
    assert sorted(front, key=lambda row: row["network_seconds"]) == front
    assert sorted(front, key=lambda row: -row["perplexity"]) == front
    shown = invoke("sweep", *grid, "--network", "wan", "--format", "table").stdout
    assert "perplexity" in shown and "with computing" not in shown


def test_seconds_with_and_without_computing_never_share_a_column() -> None:
    rows = run(full_sweep(MACHINE))
    unknown = [row for row in rows if row.reason is None and row.compute_seconds is None]
    known = [row for row in rows if row.compute_seconds is not None]
    assert known and unknown
    assert all(row.seconds is None and row.first_query_seconds is None for row in unknown)
    assert all(row.seconds == row.network_seconds + row.compute_seconds for row in known)
