"""The page on kernels, made of a bench by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from pi_sim import records, specs
from pi_sim.inference.bench import bench as measuring
from pi_sim.inference.bench.bench import QUICK
from pi_sim.inference.bench.targets import lean_targets
from pi_sim.records import BenchRecord
from pi_sim.report import kernels
from pi_sim.report.kernels import KernelData
from pi_sim.report.pages import render_page, write_kernels
from pi_sim.report.styles import svg
from tests.helpers import sample_bench
from tests.helpers.cli import invoke, refused
from tests.helpers.golden import Golden
from tests.helpers.sample_records import run_record, save, training_record

MACHINE = {"cpu": "a processor", "cores": 2, "system": "Linux"}


def saved(folder: Path, found: BenchRecord) -> Path:
    records.save(folder / "bench.json", found)
    return folder


def load(folder: Path, **changes: Any) -> KernelData:
    data = kernels.load([saved(folder, sample_bench.bench(**changes))])
    assert data is not None
    return data


def verdicts(data: KernelData) -> dict[str, str]:
    return {
        f"{row['subject']}: {row['target']}": row["verdict"]
        for row in lean_targets(data.bench, data.runs, data.missing)
    }


@pytest.fixture
def lean_runs(sources: Path) -> Path:
    """One model of two was run under lean for 100 sequences; the other one ships too."""
    for model in ("gelu_ln", "relu_nonorm"):
        weights = specs.data_root() / "models" / "weights" / f"{model}-tiny"
        save(weights / "record.json", "training", training_record(model))
    agreement = {"max_abs": 0.0312, "mean_abs": 0.00214, "top1": 0.9995, "corrupted_positions": 0}
    found = run_record(protocol="lean", network="none", sequences=100, agreement=agreement)
    path = sources / "run-relu_nonorm-tiny-lean.json"
    save(path, "run", found)
    return sources


def test_the_page(lean_runs: Path, golden: Golden) -> None:
    data = load(lean_runs)
    bench = BenchRecord.model_validate({**data.bench.model_dump(), "machine": MACHINE, "versions": {"torch": "2"}})
    golden("kernels", text(KernelData(bench, data.runs)))


@pytest.mark.usefixtures("no_terminal")
def test_the_tables_on_a_terminal(tmp_path: Path, golden: Golden) -> None:
    golden("bench", kernels.terminal_tables(load(tmp_path).bench))


def test_targets_are_met_or_missed(lean_runs: Path) -> None:
    found = verdicts(load(lean_runs))
    missed = {told.partition(":")[0] for told, verdict in found.items() if verdict == "missed"}
    assert missed == {"gelu", "products of factors up to 8"}
    assert [told.partition(":")[0] for told, verdict in found.items() if verdict == "not measured"] == ["gelu_ln"]


def test_targets_of_seconds_follow_the_cpu(lean_runs: Path) -> None:
    """Six times faster is enough with AVX-512 alone, and models have a target without it."""
    found = verdicts(load(lean_runs, vector_instructions="AVX2"))
    missed = {told.partition(":")[0] for told, verdict in found.items() if verdict == "missed" and "AVX2" in told}
    assert missed == {
        "one GPT-2 block, dealer first-party, AVX2",
        "one GPT-2 block, dealer file, AVX2",
        "relu_nonorm, dealer first-party, AVX2",
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "met"),
        ({"perplexity": {"plain": 22.0, "private": 22.03}}, "missed"),
        ({"perplexity": {"plain": 22.0, "private": None}}, "missed"),
        ({"sequences": 99}, "missed"),
        ({"agreement": {"max_abs": 0.03, "mean_abs": 0.002, "top1": 0.99, "corrupted_positions": 0}}, "missed"),
        ({"agreement": {"max_abs": 1e5, "mean_abs": 0.002, "top1": 0.996, "corrupted_positions": 1}}, "missed"),
    ],
)
def test_accuracy_is_judged(changes: dict[str, Any], verdict: str, lean_runs: Path) -> None:
    path = lean_runs / "run-relu_nonorm-tiny-lean.json"
    save(path, "run", {**records.load(path).model_dump(), **changes})
    found = verdicts(load(lean_runs))
    assert [each for told, each in found.items() if told.startswith("relu_nonorm: perplexity")] == [verdict]


def test_one_wrong_product_is_missed(lean_runs: Path) -> None:
    wrong = sample_bench.truncations()[1].model_copy(update={"wrong": 1})
    assert (
        verdicts(load(lean_runs, truncations=(wrong,)))["products of factors up to 64: none of 100,000,000 wrong"]
        == "missed"
    )


def test_reduced_sizes_are_told(tmp_path: Path) -> None:
    assert "not the sizes that the targets are meant for" in text(load(tmp_path, extent=QUICK))


def text(data: KernelData) -> str:
    return render_page("kernels", kernels.context(data), kernels.drawings(data))


def test_without_stock_there_is_nothing_to_compare(tmp_path: Path) -> None:
    ours = tuple(each for each in sample_bench.operations() if each.protocols == ("lean",))
    found = text(load(tmp_path, operations=ours, models=(), truncations=()))
    assert "masked" in found
    assert "times fewer |" not in found


def test_what_sends_nothing_has_no_dot(tmp_path: Path) -> None:
    data = load(tmp_path)
    drawn = svg(kernels.drawings(data)["kernels-bytes"])
    assert ">relu</text>" in drawn
    assert ">lean</text>" in drawn
    assert kernels.dot_values(data, "bytes_each")["scale"].keys() == {"lean"}


def test_without_a_bench_there_is_no_page(tmp_path: Path) -> None:
    assert write_kernels([tmp_path], tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_a_damaged_bench_is_one_sentence(lean_runs: Path, tmp_path: Path) -> None:
    found = {**sample_bench.bench().model_dump(mode="json"), "threads": "many"}
    (lean_runs / "bench.json").write_text(json.dumps(found), encoding="utf-8")
    said = refused(invoke("report", "--records", str(lean_runs), "--out", str(tmp_path / "out")))
    assert "bench.json" in said
    assert "threads" in said


def test_the_command_writes_record_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measured(*question: Any) -> BenchRecord:
        asked.append(question[:2])
        return sample_bench.bench()

    monkeypatch.setattr(measuring, "run_bench", measured)
    out, copy = tmp_path / "out", tmp_path / "copy.json"
    done = invoke(
        "bench", "--quick", "--protocol", "lean", "--protocol", "lean", "--out", str(out), "--json", str(copy)
    )
    assert [([protocol.name for protocol in protocols], extent) for protocols, extent in asked] == [(["lean"], QUICK)]
    names = ("figures/kernels-bytes.svg", "figures/kernels-microseconds.svg", "kernels.md")
    assert done.stdout.splitlines()[-3:] == [str(out / name) for name in names]
    assert records.load(copy, BenchRecord) == records.load(out / "records" / "bench.json")
    data = kernels.load([out / "records"])
    assert data is not None
    assert (out / "kernels.md").read_text(encoding="utf-8") == text(data) + "\n"
