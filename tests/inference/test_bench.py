"""The bench between two real processes at small shapes: what it counts, what it refuses, and what it finds wrong."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pi_sim import specs
from pi_sim.cost.cost import Cost
from pi_sim.cost.pricing import price_op
from pi_sim.errors import RunError
from pi_sim.inference.bench import bench
from pi_sim.inference.bench.bench import QUICK, bench_cases, measure_kernels, measure_models
from pi_sim.inference.bench.kernels import BenchJob, LoggingSource, PreloadedSource, check_counters
from pi_sim.inference.bench.workloads import list_workloads
from pi_sim.mpc.dealer.correlations import random_bit
from pi_sim.mpc.dealer.dealers import DEALT_FILE
from pi_sim.mpc.dealer.prg import AesCtrPrg
from pi_sim.mpc.dealer.sources import DealerSource
from pi_sim.mpc.kernels.registry import KERNELS, UNIVERSAL
from pi_sim.records import BenchSize, KernelTiming, TruncationTest
from tests.helpers.cli import invoke, refused

CRYPTEN, LEAN = (specs.load_executable_protocol(name) for name in ("crypten", "lean"))
SMALL = QUICK.model_copy(update={"tokens": 4, "truncations": 20_000, "bounds": (2**14,), "models": ()})
"""Factors so large that one product in 64 is truncated wrong where each party shifts its own share."""
Found = tuple[tuple[KernelTiming, ...], tuple[TruncationTest, ...]]


def silent(title: str) -> "nullcontext[object]":
    return nullcontext(lambda fraction: None)


@pytest.fixture(scope="module")
def found() -> Found:
    return measure_kernels(bench_cases([CRYPTEN, LEAN], SMALL), SMALL, silent)


def test_every_operation_with_a_choice_of_kernels_is_measured() -> None:
    chosen = {op for op, name in KERNELS if name != UNIVERSAL}
    assert {workload.op.name for workload in list_workloads(BenchSize())} == chosen | {"reveal"}


@pytest.mark.parties
def test_operations_are_counted_as_priced(found: Found) -> None:
    known = {workload.name: workload.op for workload in list_workloads(SMALL)}
    for each in found[0]:
        cost = price_op(known[each.name], specs.load_executable_protocol(each.protocols[0])).cost
        assert (each.rounds, each.bytes, each.offline_bytes) == (cost.rounds, cost.bytes, cost.offline)


@pytest.mark.parties
def test_our_values_are_right_and_timed(found: Found) -> None:
    ours = [each for each in found[0] if "lean" in each.protocols and each.seconds is not None]
    assert len(ours) == len(list_workloads(SMALL)) - 1
    assert max(each.error or 0 for each in ours) < 0.002
    assert all((each.seconds or 0) > 0 and (each.online_seconds or 0) > 0 for each in ours)


@pytest.mark.parties
def test_a_wrong_value_is_seen(found: Found) -> None:
    """CrypTen's erf runs away beyond small inputs."""
    (gelu,) = [each for each in found[0] if (each.name, each.kernel) == ("gelu", "erf-taylor")]
    assert (gelu.error or 0) > 0.1


@pytest.mark.parties
def test_one_measurement_serves_protocols_that_compute_alike(found: Found) -> None:
    (scale,) = [each for each in found[0] if each.name == "neg"] or [each for each in found[0] if each.name == "erf"][
        :1
    ]
    assert scale.protocols


@pytest.mark.parties
def test_a_large_embedding_is_priced_alone(found: Found) -> None:
    large = [each for each in found[0] if each.seconds is None]
    assert {each.name for each in large} == {f"embedding, V = {SMALL.large_vocabulary}"}
    assert all(each.bytes > 0 for each in large)


@pytest.mark.parties
def test_visible_scores_are_what_ours_computes(found: Found) -> None:
    stock, ours = (each for each in found[0] if each.name == "softmax")
    assert (stock.elements, ours.elements) == (2 * 4 * 4, 2 * 10)


@pytest.mark.parties
def test_local_truncation_fails_as_often_as_expected_and_ours_never(found: Found) -> None:
    stock, ours = found[1]
    assert stock.number == ours.number == 20_000
    assert stock.expected_locally == ours.expected_locally == pytest.approx(20_000 / 64, rel=0.05)
    assert abs(stock.wrong - stock.expected_locally) < 5 * math.sqrt(stock.expected_locally)
    assert stock.units == 2
    assert (ours.wrong, ours.units) == (0, 1)


def test_the_other_party_gets_the_same_job() -> None:
    job = BenchJob(extent=SMALL, tasks=[("gelu", LEAN)])
    assert BenchJob.model_validate_json(job.model_dump_json()).model_dump() == job.model_dump()


@pytest.mark.parties
def test_a_wrong_price_fails_the_bench() -> None:
    plan = next(plan for plan in bench_cases([LEAN], SMALL) if plan.workload.name == "relu")
    wrong = plan.price._replace(cost=plan.price.cost + Cost.symmetric(0, 8))
    with pytest.raises(RunError, match=r"relu\(1x4x64\) under lean: predicted were 4 rounds"):
        measure_kernels([replace(plan, price=wrong)], SMALL, silent)


COUNTED = [3, 80, 72, 3, 152, 16, 16]
OTHER = [3, 72, 80, 3, 152, 16, 16]
PREDICTED = Cost(3, (80, 72), 16)


def test_what_was_predicted_passes() -> None:
    check_counters("x", PREDICTED, torch.tensor([COUNTED, OTHER]))


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("rank", [0, 1])
def test_one_counter_that_differs_is_refused(rank: int, place: int) -> None:
    rows = torch.tensor([COUNTED, OTHER])
    rows[rank, place] += 8
    with pytest.raises(RunError, match="relu"):
        check_counters("relu", PREDICTED, rows)


def test_what_lies_ready_is_fresh_and_holds() -> None:
    """Both parties note the same; what is dealt again is other randomness of the same kind."""
    seeds = bytes(16), bytes([1] * 16)
    noting = LoggingSource(DealerSource(*map(AesCtrPrg, seeds)))
    first = noting.deal(random_bit((64,)))
    ready = PreloadedSource(noting.source, noting.requests)
    second = ready.deal(random_bit((64,)))
    assert ready.offline_bytes == noting.offline_bytes == 8 * 64
    assert not torch.equal(first[1], second[1])


@pytest.mark.parties
def test_a_block_runs_with_a_dealt_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "DEALERS", (DEALT_FILE,))
    (found,) = measure_models([LEAN], SMALL, silent)
    assert (found.model, found.protocol, found.dealer) == (bench.BLOCK_NAME, "lean", DEALT_FILE)
    assert found.difference < 0.01
    assert found.seconds > found.communication_seconds > 0
    assert min(found.rounds, found.bytes, found.offline_bytes, found.session_bytes) > 0


def test_a_block_has_the_shapes_of_gpt2() -> None:
    with torch.device("meta"):
        found = bench.gpt2_block(BenchSize())
    shapes = {tuple(each.shape) for each in found.parameters()}
    assert {(768, 2304), (768, 3072), (3072, 768), (128, 768)} <= shapes
    assert found.config.n_layer == 1


def test_protocols_that_cannot_run_are_refused(tmp_path: Path) -> None:
    assert "protocol puma is declared" in refused(invoke("bench", "--protocol", "puma"))
    assert "unknown protocol 'magic'" in refused(invoke("bench", "--protocol", "magic"))
    other = tmp_path / "other.toml"
    stock = specs.find_file("protocols", "crypten").read_text(encoding="utf-8")
    other.write_text(stock.replace('precision_bits" = 16', 'precision_bits" = 20'), encoding="utf-8")
    assert "sets encoder.precision_bits" in refused(invoke("bench", "--protocol", str(other)))
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(invoke("bench", "--out", str(tmp_path / "file" / "out")))
