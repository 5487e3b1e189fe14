"""Latency on a device within a budget: rows, refusals, failures and interrupts."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pi_sim import records
from pi_sim.errors import RunError
from pi_sim.inference.bench import latency
from pi_sim.inference.bench.bench import shipped_model
from pi_sim.inference.two_party import export_bundle
from pi_sim.mpc import launch
from pi_sim.records import LatencyRecord
from pi_sim.specs import load_executable_protocol
from pi_sim.zoo.source import ModelSource
from tests.helpers.cli import invoke, refused


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave one shipped model, two sequences of four tokens."""
    monkeypatch.setattr(latency, "latency_models", lambda quick: iter([shipped_model("relu_nonorm", 2, 4)]))


def run(out: Path, *options: str) -> tuple[Any, LatencyRecord]:
    result = invoke("latency", "--device", "cpu", "--quick", "--out", str(out), *options)
    return result, records.load(out / "records" / "latency.json", LatencyRecord)


@pytest.mark.parties
def test_latency_stands_beside_perplexity(tmp_path: Path) -> None:
    result, record = run(tmp_path)
    assert result.exit_code == 0
    assert [(row.device, row.protocol) for row in record.rows] == [("cpu", "lean"), ("cpu", "crypten_tanh")]
    lean, stock = record.rows
    assert lean.bytes < stock.bytes
    for row in record.rows:
        assert (row.seq_len, row.sequences) == (4, 2)
        assert 0 < row.communication_seconds < row.seconds
        assert row.perplexity and row.perplexity.plain and row.perplexity.private
        assert row.perplexity.private == pytest.approx(row.perplexity.plain, rel=0.01)
        assert (row.memory_bytes or 0) > 10**8
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| relu_nonorm |      4 | cpu    | lean (ours)  |" in page
    assert "figures/latency.svg" in page
    assert (tmp_path / "figures" / "latency.svg").is_file()
    sources = ["--records", "reports/records", "--records", tmp_path / "records"]
    assert invoke("report", *sources, "--out", tmp_path / "x").exit_code == 0
    assert (tmp_path / "x" / "gpu.md").read_text(encoding="utf-8") == page


def test_a_budget_refuses_what_it_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(latency.time, "monotonic", lambda: now)
    budget = latency.Budget(60)
    assert budget.refusal(("cpu", "lean"), 10) is None
    now = 130.0
    budget.record(("cpu", "lean"), 10, started=100.0)
    assert budget.refusal(("cpu", "lean"), 9) is None
    assert budget.refusal(("cpu", "lean"), 20) == "about 60 s needed, 30 s left"
    assert budget.refusal(("cpu", "crypten"), 20) is None
    now = 161.0
    assert budget.refusal(("cpu", "crypten"), 20) == "the budget was spent"


def fail_second(error: BaseException) -> Callable[..., Any]:
    """Return a measurement that raises an error after its first run."""
    measure, count = latency._measure_device, iter(range(2))

    def run_once(*arguments: Any) -> Any:
        if next(count):
            raise error
        return measure(*arguments)

    return run_once


@pytest.mark.parties
def test_a_failed_run_is_recorded_and_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_measure_device", fail_second(RunError("out of memory.")))
    result, record = run(tmp_path)
    assert result.exit_code == 1
    assert "1 of the runs failed, the first with: out of memory." in result.stderr
    assert [run.reason for run in record.skipped] == ["out of memory."]
    assert "## Not measured" in (tmp_path / "gpu.md").read_text(encoding="utf-8")


@pytest.mark.parties
def test_an_interrupt_keeps_finished_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_measure_device", fail_second(KeyboardInterrupt()))
    result, record = run(tmp_path)
    assert result.exit_code == 130
    assert [row.protocol for row in record.rows] == ["lean"]


@pytest.mark.parties
def test_a_run_ends_with_the_budget(tmp_path: Path) -> None:
    result, record = run(tmp_path, "--budget", "1")
    assert result.exit_code == 0
    assert record.rows == ()
    assert len(record.skipped) == 2
    assert {run.reason for run in record.skipped} <= {"stopped at the end of the budget", "the budget was spent"}


@pytest.mark.parties
def test_a_run_is_stopped_by_its_limit() -> None:
    card = load_executable_protocol("lean")
    with tempfile.TemporaryDirectory() as folder, pytest.raises(launch.TimeLimitError, match="did not end within 1 s"):
        source = ModelSource.parse("relu_nonorm", "tiny")
        bundle = export_bundle(source, 8, Path(folder) / "bundle", card)
        launch.run_local(bundle, card, {"tokens": torch.zeros(50, 1, 8, dtype=torch.long)}, limit=1.0)


def test_a_machine_without_a_gpu_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert refused(invoke("latency")) == "pi-sim: torch sees no CUDA GPU on this machine; use --device cpu.\n"
