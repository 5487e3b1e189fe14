"""Sweeps: every line is an estimate, and what has no price says why."""

from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import invoke, python, refused

from pi_sim import specs
from pi_sim.cost.census import Census
from pi_sim.cost.estimate import Estimate, estimate, priced
from pi_sim.cost.machine import Machine, SecondsEach
from pi_sim.errors import MissingError, UsageError
from pi_sim.graph.ops import Op
from pi_sim.network import PRESETS, Network
from pi_sim.reporting import keys
from pi_sim.sweep import kept, subject, tariff
from pi_sim.sweep.answers import COLUMNS, Answer
from pi_sim.sweep.grid import Axes, Question
from pi_sim.sweep.sweep import Sweep
from pi_sim.sweep.tariff import Tariff, tariffs

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


def whole(machine: Machine | None = None) -> Sweep:
    """What `GRID` and `PROTOCOLS` ask for."""
    questions = Axes(MODELS, ("tiny",), lengths=(8, 999), pasts=(4,)).questions()
    return Sweep(questions, tariffs(("crypten", "sigma", "bolt")), [PRESETS["lan"], PRESETS["wan"]], machine)


def run(sweep: Sweep) -> list[Answer]:
    return sweep.run(kept.Table(lambda text: None), lambda fraction: None)


def sweep(*arguments: str) -> Result:
    return invoke("sweep", *GRID, *PROTOCOLS, *arguments)


def one(answer: Answer, machine: Machine | None) -> Estimate:
    """The estimate that an answer is a line of."""
    length, links = answer.seq_len if answer.past is None else None, [PRESETS[answer.network]]
    return estimate(answer.model, answer.size, answer.protocol, length, links, past=answer.past, machine=machine)


@pytest.mark.parametrize("machine", [None, MACHINE])
def test_every_line_is_the_estimate(machine: Machine | None) -> None:
    answers = run(whole(machine))
    assert len(answers) == LINES
    for answer in answers:
        if answer.reason:
            with pytest.raises(UsageError) as error:
                one(answer, machine)
            assert answer.reason == str(error.value)
        else:
            same(answer, one(answer, machine))
    assert {answer.protocol for answer in answers if answer.seconds} == {"crypten", "sigma"}


def same(answer: Answer, known: Estimate) -> None:
    """Exactly, floating point and all."""
    total = known.to_json()["total"]
    assert {key: getattr(answer, key) for key in total if key != "seconds"} == {
        key: number for key, number in total.items() if key != "seconds"
    }
    assert answer.seconds == total["seconds"][answer.network]


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
    monkeypatch.setattr(subject, "counted", lambda *_: (1, census))
    sigma = Tariff("sigma")
    (answer,) = run(Sweep([Question("a", "b", 1, 1, None, False)], [sigma], [network]))
    expected = Estimate("a", "b", "sigma", 1, priced(census, sigma.protocol), frozenset(), [network])
    assert (answer.rounds, answer.bytes) == (expected.total.rounds, expected.total.bytes)
    assert answer.seconds == expected.seconds(expected.whole)[network.name]


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
    other.write_text(specs.find("protocols", "crypten").read_text())
    assert "both called crypten" in refused(invoke("sweep", "--protocol", "crypten", "--protocol", str(other)))


def test_a_model_with_a_config_has_one_size() -> None:
    axes = Axes(("bert-base", "gelu_ln"), ("tiny", "gpt2"), batches=(1, 2))
    found = [(each.model, each.size, each.seq_len, each.batch) for each in axes.questions()]
    assert found == [
        ("bert-base", "own", 512, 1),
        ("bert-base", "own", 512, 2),
        ("gelu_ln", "tiny", 128, 1),
        ("gelu_ln", "tiny", 128, 2),
        ("gelu_ln", "gpt2", 128, 1),
        ("gelu_ln", "gpt2", 128, 2),
    ]


def test_lines_go_to_standard_output_without_a_file() -> None:
    found = sweep()
    assert found.stdout == kept.HEADER + kept.lines(run(whole()))
    assert f"{LINES} estimates" in found.stderr


def test_a_missing_package_is_no_reason_why_there_is_no_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be kept, and believed when the package is there."""

    def charge(*_: object) -> None:
        raise MissingError("CrypTen cannot be imported.")

    monkeypatch.setattr(tariff, "charge", charge)
    assert "CrypTen cannot be imported" in refused(sweep("--out", str(tmp_path / "sweep.csv")))
    assert (tmp_path / "sweep.csv").read_text() == kept.HEADER


def test_known_answers_import_neither_torch_nor_pandas() -> None:
    arguments = ["sweep", "--model", "relu_nonorm", "--seq-len", "8", *PROTOCOLS]
    first = invoke(*arguments)
    code = f"import sys; from pi_sim.cli import main; main({arguments}, standalone_mode=False)"
    again = python(f"{code}; assert not {{'torch', 'pandas', 'numpy', 'matplotlib'}} & set(sys.modules)")
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout


def test_every_column_is_explained() -> None:
    assert tuple(keys.SWEEP) == COLUMNS
