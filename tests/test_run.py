"""Private runs of the shipped models, as a user starts them: two real processes over TCP."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from pi_sim import specs
from pi_sim.cli import main
from pi_sim.cost.cost import Cost
from pi_sim.cost.prices import price
from pi_sim.errors import RunError
from pi_sim.graph.capture import capture
from pi_sim.mpc.pair import Counted
from pi_sim.records import Agreement
from pi_sim.run import two_party
from pi_sim.run.audit import check
from pi_sim.run.quality import compare, out_of_domain, perplexity
from pi_sim.zoo.build import load_model, meta_model

CARDS = ["gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm"]
LENGTH = 16


def pi_sim(*arguments: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The record of a run that succeeded."""
    record = tmp_path / "record.json"
    pi_sim("run", "two-party", "--seq-len", str(LENGTH), "--json", str(record), *arguments)
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
    pi_sim("export", "--model", "relu_nonorm", "--seq-len", str(LENGTH), "--out", str(bundle))
    alone = run(tmp_path, "--bundle", str(bundle))
    assert alone["perplexity"]["plain"] is None
    assert alone["agreement"] is None
    beside = run(tmp_path, "--bundle", str(bundle), "--model", "relu_nonorm")
    assert math.isclose(alone["perplexity"]["private"], beside["perplexity"]["plain"], rel_tol=0.02)


NOTHING = dict.fromkeys(("rounds", "sent", "received", "crypten_rounds", "crypten_bytes"), 0)
"""Stock kernels open no weights beforehand."""


def outcome(rank: int = 0, **falsified: int) -> tuple[Any, Any, Counted]:
    """A faithful outcome of a small graph, one party's counters falsified; `node` is its last node's bytes."""
    graph, protocol = capture(meta_model("relu_nonorm", "tiny"), 4), specs.protocol_card("crypten")
    reached, nodes = Cost(), []
    for node in graph.nodes:
        reached += price(node.op, protocol)
        nodes.append((reached.rounds, reached.bytes))
    counts = {
        "rounds": reached.rounds, "sent": reached.bytes, "received": reached.bytes,
        "offline": reached.offline, "asked": reached.offline,
        "crypten_rounds": reached.rounds, "crypten_bytes": 2 * reached.bytes,
    }  # fmt: skip
    both = [{**counts, "nodes": list(nodes)} for _ in (0, 1)]
    both[rank]["nodes"][-1] = (nodes[-1][0] + falsified.pop("round", 0), nodes[-1][1] + falsified.pop("node", 0))
    for name, error in falsified.items():
        both[rank][name] += error
    return graph, protocol, Counted([[one] for one in both], [NOTHING, NOTHING], 0.0, {})


def test_equal_counters_pass() -> None:
    check(*outcome())


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("falsified", "sentence"),
    [
        ({"round": 1}, r"part at reveal\(1x4x2048\) in output"),
        ({"node": 8}, r"part at reveal\(1x4x2048\) in output"),
        ({"received": 8, "crypten_bytes": 8}, "sent [0-9]+ bytes, and [0-9]+ arrived"),
        ({"crypten_bytes": 8}, "CrypTen counted"),
        ({"crypten_rounds": 1}, "CrypTen counted"),
        ({"rounds": 1}, "CrypTen counted"),
        ({"offline": 8}, "asked for [0-9]+, and [0-9]+ came"),
        ({"asked": 8}, "asked for [0-9]+, and [0-9]+ came"),
    ],
)
def test_counters_that_part_are_a_failure(rank: int, falsified: dict[str, int], sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        check(*outcome(rank, **falsified))


def test_perplexity_is_that_of_the_definition() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 1.0, 1.0]]]))
    assert perplexity(logits, torch.tensor([[0, 1, 2]])) == pytest.approx((0.25 * 0.8) ** -0.5)
    assert perplexity(logits * 1e6, torch.tensor([[0, 1, 0]])) is None


def test_agreement_compares_logits() -> None:
    plain, tokens = torch.tensor([[[1.0, 2.0], [3.0, 1.0]]]), torch.tensor([[0, 1]])
    private = plain + torch.tensor([[[0.0, -1.5], [0.5, 0.0]]])
    quality, agreement = compare(plain, private, tokens)
    assert agreement == Agreement(max_abs=1.5, mean_abs=0.5, top1=0.5, corrupted_positions=0)
    assert quality.excluding_corrupted is None


def test_corrupted_positions_are_counted_and_left_out() -> None:
    plain, tokens = torch.randn(1, 4, 3), torch.tensor([[0, 1, 2, 0]])
    private = plain.clone()
    private[0, 1, 0] = 2.0**32
    quality, agreement = compare(plain, private, tokens)
    assert agreement is not None
    assert agreement.corrupted_positions == 1
    assert quality.excluding_corrupted is not None
    kept = torch.tensor([[True, False, True, True]])
    assert quality.excluding_corrupted.private == pytest.approx(perplexity(plain, tokens, kept))
    assert (quality.private or math.inf) > 1e6


def test_a_bundle_of_another_model_or_length_is_refused(tmp_path: Path) -> None:
    two_party.export("relu_nonorm", "tiny", 8, tmp_path / "bundle")
    for arguments, sentence in (
        (["--model", "gelu_nonorm"], "was not exported from gelu_nonorm"),
        (["--seq-len", "16"], "was exported for 8 tokens"),
    ):
        result = CliRunner().invoke(main, ["run", "two-party", "--bundle", str(tmp_path / "bundle"), *arguments])
        assert result.exit_code == 2
        assert sentence in result.stderr


def test_activations_out_of_a_domain_are_told_beforehand() -> None:
    model = load_model("gelu_ln", "tiny")
    graph, tokens = capture(model, LENGTH), torch.arange(LENGTH)[None]
    with torch.no_grad():
        said = list(out_of_domain(graph, model, specs.protocol_card("crypten"), tokens))
        assert [sentence.split(" is right")[0] for sentence in said] == ["gelu by erf-taylor"]
        assert not list(out_of_domain(graph, model, specs.protocol_card("crypten_tanh"), tokens))
