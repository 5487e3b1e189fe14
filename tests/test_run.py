"""Private runs of the shipped models, as a user starts them: two real processes over TCP."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pi_sim import specs
from pi_sim.cost.census import Census
from pi_sim.errors import RunError
from pi_sim.graph.capture import capture
from pi_sim.mpc.pair import Outcome
from pi_sim.run.audit import check
from pi_sim.run.quality import compare, perplexity
from pi_sim.zoo.build import load_model, meta_model

CARDS = ["gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm"]
LENGTH = 16


def pi_sim(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "pi_sim", *arguments], capture_output=True, text=True, check=False)


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The record of a run that succeeded."""
    record = tmp_path / "record.json"
    done = pi_sim("run", "two-party", "--seq-len", str(LENGTH), "--json", str(record), *arguments)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(record.read_text()))


@pytest.mark.parametrize("card", CARDS)
def test_a_shipped_model_runs_as_predicted(card: str, tmp_path: Path) -> None:
    """Predicted == measured for every tiny model; where kernels stay in their domain, so does the model's quality."""
    record = run(tmp_path, "--model", card, "--protocol", "crypten_tanh", "--sequences", "2")
    for key in ("rounds", "bytes", "offline_bytes"):
        assert record["measured"][key] == record["total"][key]
    assert record["sequences"] == 2
    assert record["perplexity"]["plain"] > 1
    assert record["agreement"]["top1"] > 0.45  # stock truncation may destroy one of the two sequences, never both
    seconds = record["measured"]
    assert seconds["seconds"] == pytest.approx(seconds["compute_seconds"] + seconds["communication_seconds"])


def test_a_bundle_runs_without_the_weights(tmp_path: Path) -> None:
    """Exported shares alone give the plain model's logits: nothing else is read."""
    bundle = tmp_path / "bundle"
    done = pi_sim("export", "--model", "relu_nonorm", "--seq-len", str(LENGTH), "--out", str(bundle))
    assert done.returncode == 0, done.stderr
    alone = run(tmp_path, "--bundle", str(bundle))
    assert alone["perplexity"]["plain"] is None
    assert alone["agreement"] is None
    beside = run(tmp_path, "--bundle", str(bundle), "--model", "relu_nonorm")
    assert math.isclose(alone["perplexity"]["private"], beside["perplexity"]["plain"], rel_tol=0.02)


def outcome(rounds: int = 0, sent: int = 0, lost: int = 0, crypten: int = 0) -> tuple[Any, Any, Outcome]:
    """A faithful outcome of a small graph, falsified by the arguments at its last node."""
    graph, protocol = capture(meta_model("relu_nonorm", "tiny"), 4), specs.protocol_card("crypten")
    from pi_sim.cost.cost import Cost
    from pi_sim.cost.prices import price

    reached, nodes = Cost(), []
    for node in graph.nodes:
        reached += price(node.op, protocol)
        nodes.append((reached.rounds, reached.bytes))
    nodes[-1] = (nodes[-1][0] + rounds, nodes[-1][1] + sent)
    both = [{"sent": 10, "received": 10, "nodes": nodes}, {"sent": 10, "received": 10 - lost, "nodes": nodes}]
    counts = [{"sequences": [one], "crypten": {"bytes": 20 + crypten}} for one in both]
    return graph, protocol, Outcome(counts, torch.zeros(1), 0.0)


def test_equal_counters_pass() -> None:
    check(*outcome())


@pytest.mark.parametrize(
    ("falsified", "sentence"),
    [
        ({"rounds": 1}, r"part at reveal\(1x4x2048\) in output"),
        ({"sent": 8}, r"part at reveal\(1x4x2048\) in output"),
        ({"lost": 8}, "received less than the other had sent"),
        ({"crypten": 8}, "CrypTen counted 28 bytes, the link 20"),
    ],
)
def test_counters_that_part_are_a_failure(falsified: dict[str, int], sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        check(*outcome(**falsified))


def test_perplexity_is_that_of_the_definition() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 1.0, 1.0]]]))
    assert perplexity(logits, torch.tensor([[0, 1, 2]])) == pytest.approx((0.25 * 0.8) ** -0.5)
    assert perplexity(logits * 1e6, torch.tensor([[0, 1, 0]])) is None


def test_agreement_compares_logits() -> None:
    plain, tokens = torch.tensor([[[1.0, 2.0], [3.0, 1.0]]]), torch.tensor([[0, 1]])
    private = plain + torch.tensor([[[0.0, -1.5], [0.5, 0.0]]])
    assert compare(plain, private, tokens)["agreement"] == {"max_abs": 1.5, "mean_abs": 0.5, "top1": 0.5}


def test_a_census_counts_every_node_once() -> None:
    graph = capture(load_model("relu_nonorm", "tiny"), LENGTH)
    assert sum(Census.of(graph).counts.values()) == len(list(graph.census()))
