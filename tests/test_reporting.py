"""Reports: text is compared with tests/golden exactly; `PI_SIM_RENEW=1 pytest tests/test_reporting.py` renews it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from handmade import PERPLEXITIES, estimate, run_record, training_record

from pi_sim import records, specs
from pi_sim.cli import main
from pi_sim.errors import UsageError
from pi_sim.reporting import tables, units
from pi_sim.reporting.estimates import render
from pi_sim.reporting.markdown import report
from pi_sim.reporting.runs import summary
from pi_sim.reporting.tables import Column, Table

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str, text: str) -> None:
    """Compare a text with the file that keeps it."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("PI_SIM_RENEW"):
        path.write_text(f"{text}\n", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == f"{text}\n"


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden texts are those of a pipe, also under `pytest -s`."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of records, and facts without shipped weights."""
    facts = tmp_path / "facts"
    (facts / "models").mkdir(parents=True)
    for part in ("protocols", "models/sizes", *(f"models/{model}.toml" for model in PERPLEXITIES)):
        (facts / part).symlink_to(specs.facts() / part)
    monkeypatch.setattr(specs, "facts", lambda: facts)
    (tmp_path / "records").mkdir()
    return tmp_path / "records"


@pytest.fixture
def full(sources: Path) -> Path:
    """Records of the four designs: trainings with two seeds, a run each, and one GELU that leaves its domain."""
    for model in PERPLEXITIES:
        records.save(sources / f"run-{model}-tiny-crypten.json", "run", run_record(model))
        for seed in (0, 1):
            records.save(sources / f"training-{model}-seed{seed}.json", "training", training_record(model, seed))
    broken = run_record("gelu_ln", perplexity={"plain": 21.0, "private": None})
    records.save(sources / "run-gelu_ln-tiny-crypten.json", "run", broken)
    records.save(sources / "run-gelu_ln-tiny-crypten_tanh.json", "run", run_record("gelu_ln", "crypten_tanh"))
    kept = {**specs.model_card("relu_nonorm").architecture.model_dump(), "final_norm": "layernorm"}
    extra = training_record("relu_nonorm", architecture=kept)
    records.save(sources / "training-relu_nonorm-final_norm.json", "training", extra)
    return sources


@pytest.mark.parametrize("style", ["table", "markdown", "csv"])
def test_an_estimate_by_operation(style: Any) -> None:
    golden(f"estimate-op-{style}", render([estimate()], "op", style))


@pytest.mark.parametrize("view", ["layer", "module", "total"])
def test_an_estimate_by_place(view: Any) -> None:
    golden(f"estimate-{view}-table", render([estimate()], view, "table"))


def test_several_estimates_follow_one_another() -> None:
    both = [estimate(protocol=protocol) for protocol in ("crypten", "crypten_tanh")]
    golden("estimates-total-table", render(both, "total", "table"))
    golden("estimates-total-csv", render(both, "total", "csv"))


def test_json_is_one_object_or_a_list() -> None:
    assert json.loads(render([estimate()], "op", "json")) == estimate().to_json()
    assert json.loads(render([estimate(), estimate()], "op", "json")) == [estimate().to_json()] * 2


def test_csv_leaves_nothing_out() -> None:
    """Sums of the raw numbers are the totals."""
    header, *lines = (line.split(",") for line in render([estimate()], "module", "csv").splitlines())
    assert len(lines) == len({row.module for row in estimate().rows})
    assert sum(int(line[header.index("bytes")]) for line in lines) == estimate().total.bytes


@pytest.mark.parametrize(("columns", "folded"), [(200, False), (70, True), (20, True)])
def test_a_narrow_terminal_cuts_no_number(columns: int, folded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    table = Table([Column("a", "a"), *(Column("b", "b", units.COUNT) for _ in range(3))], [["x" * 60, *[10**9] * 3]])
    drawn = tables.render(table, "table")
    assert drawn.count("1,000,000,000") == 3
    assert ("x" * 60 not in drawn) == folded


@pytest.mark.parametrize(
    ("value", "text"),
    [(24.684, "24.68"), (3.2e17, "3.2e+17"), (None, "beyond all numbers"), (math.nan, "not a number")],
)
def test_any_perplexity_can_be_told(value: float | None, text: str) -> None:
    assert units.perplexity(value) == text


def test_what_would_round_to_nothing_is_not_nothing() -> None:
    assert units.BYTES[1].show(1) == "<0.01"
    assert units.BYTES[1].show(0) == "0.00"


def test_a_run_in_a_screenful() -> None:
    golden("run", summary(run_record()))


def test_a_run_without_a_plain_model_or_a_network() -> None:
    found = {"plain": None, "private": None}
    golden("run-of-a-bundle", summary(run_record(network="none", perplexity=found, agreement=None)))


def test_the_page(full: Path, tmp_path: Path) -> None:
    """All but the last line, which tells the machine."""
    page = report([full], tmp_path)[-1].read_text(encoding="utf-8")
    golden("page", page.rpartition("\n\n")[0])


def test_the_same_records_make_the_same_bytes(full: Path, tmp_path: Path) -> None:
    first, second = (report([full], tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert [path.name for path in first] == ["bytes-tiny.svg", "tradeoff-tiny.svg", "loss-tiny.svg", "norm-free.md"]


def test_every_figure_is_in_the_page(full: Path, tmp_path: Path) -> None:
    *figures, page = report([full], tmp_path)
    text = page.read_text(encoding="utf-8")
    assert all(f"](figures/{figure.name})" in text for figure in figures)


def test_a_run_alone_makes_a_smaller_page(sources: Path, tmp_path: Path) -> None:
    records.save(sources / "run.json", "run", run_record(agreement=None, perplexity={"plain": None, "private": 9.0}))
    *figures, page = report([sources], tmp_path)
    assert [figure.name for figure in figures] == ["bytes-tiny.svg"]
    text = page.read_text(encoding="utf-8")
    assert "How far the papers' order holds" not in text
    assert "### Training" not in text


def test_a_training_that_diverged_is_behind_every_other(full: Path, tmp_path: Path) -> None:
    nothing = {"held_out": {"perplexity": math.nan}, "loss_curve": [[10, math.nan]]}
    for seed in (0, 1):
        record = training_record("relu_nonorm", seed, **nothing)
        records.save(full / f"training-relu_nonorm-seed{seed}.json", "training", record)
    text = report([full], tmp_path)[-1].read_text(encoding="utf-8")
    assert "relu_nonorm is behind gelu_nonorm (beyond all numbers against 22.00" in text


def test_a_later_folder_overrides(full: Path, tmp_path: Path) -> None:
    changed = run_record("relu_ln", perplexity={"plain": 77.77, "private": 77.77})
    records.save(tmp_path / "later" / "any-name.json", "run", changed)
    text = report([full, tmp_path / "later"], tmp_path)[-1].read_text(encoding="utf-8")
    assert "any-name.json" in text
    assert "run-relu_ln-tiny-crypten.json" not in text


def test_without_a_run_the_sentence_names_the_command(sources: Path, tmp_path: Path) -> None:
    records.save(sources / "training.json", "training", training_record("gelu_ln"))
    with pytest.raises(UsageError, match=r"no record of a run in .*; pi-sim run two-party --model relu_nonorm --json"):
        report([sources], tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"kind": "run", "version": 1, ', "is not a pi-sim record of version 1"),
        ('{"kind": "run", "version": 2}', "is not a pi-sim record of version 1"),
        ("[]", "is not a pi-sim record of version 1"),
        ('{"kind": "run", "version": 1}', "has no model; make this record anew or remove it"),
    ],
)
def test_a_damaged_record_is_one_sentence(text: str, sentence: str, sources: Path, tmp_path: Path) -> None:
    (sources / "run.json").write_text(text)
    result = CliRunner().invoke(main, ["report", "--records", str(sources), "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert str(sources / "run.json") in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_command_prints_the_page_last(full: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", "--records", str(full), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == str(tmp_path / "out" / "norm-free.md")


def test_an_estimate_is_rendered_without_torch_or_pandas() -> None:
    modules = "pi_sim.reporting.estimates, pi_sim.reporting.runs"
    check = f"import sys, {modules}; print(sorted({{'torch', 'pandas', 'matplotlib'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
