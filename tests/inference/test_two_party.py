"""Private runs of the shipped models, as a user starts them: two real processes over TCP."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from pi_sim import specs
from pi_sim.cli import main
from pi_sim.errors import UsageError
from pi_sim.graph.capture import capture_model
from pi_sim.graph.ops import Graph, Node, Op
from pi_sim.inference import two_party
from pi_sim.inference.checks import compare_results, perplexity
from pi_sim.inference.domains import evaluate_inputs, join_ranges, measure_ranges, warn_of_domains
from pi_sim.inference.inputs import InputChoice, RunInputs
from pi_sim.records import Agreement, Perplexity, RunRecord, load
from pi_sim.specs import load_executable_protocol
from pi_sim.zoo.source import ModelSource

CARDS = ["gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm"]
LENGTH = 16


def pi_sim(*arguments: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The record of a run that succeeded, though stock truncation may have destroyed a sequence."""
    record = tmp_path / "record.json"
    options = ("--seq-len", str(LENGTH), "--allow-inexact", "--json", str(record))
    pi_sim("run", "two-party", *options, *arguments)
    return dict(json.loads(record.read_text()))


@pytest.mark.parties
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


@pytest.mark.parties
def test_a_wrong_result_fails_unless_it_is_accepted(tmp_path: Path) -> None:
    """GELU by CrypTen's Taylor series leaves its domain: the record is written and the run fails."""
    record = tmp_path / "record.json"
    arguments = ["run", "two-party", "--model", "gelu_ln", "--seq-len", str(LENGTH), "--protocol", "crypten"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(record)])
    assert result.exit_code == 1
    assert "the private result is wrong: logits at " in result.stderr
    assert "--allow-inexact" in result.stderr
    assert load(record, RunRecord).faults
    assert CliRunner().invoke(main, [*arguments, "--allow-inexact"]).exit_code == 0


@pytest.mark.parametrize(
    ("top1", "corrupted", "private", "faults"),
    [
        (0.96, 0, 10.4, []),
        (0.94, 0, 10.4, ["top-1 agrees at 94.0% of positions"]),
        (1.0, 2, 10.0, ["logits at 2 positions are corrupted"]),
        (1.0, 0, 10.6, ["perplexity is off by +6.0%"]),
        (1.0, 0, None, ["perplexity overflows"]),
    ],
)
def test_faults_of_a_result_are_named(top1: float, corrupted: int, private: float | None, faults: list[str]) -> None:
    agreement = Agreement(max_abs=0.1, mean_abs=0.1, top1=top1, corrupted_positions=corrupted)
    quality = Perplexity(plain=10.0, private=private)
    record = RunRecord.model_construct(agreement=agreement, perplexity=quality)
    assert record.faults == faults


@pytest.mark.parties
def test_a_bundle_runs_without_the_weights(tmp_path: Path) -> None:
    """Exported shares alone give the plain model's logits: nothing else is read."""
    bundle = tmp_path / "bundle"
    pi_sim("export", "--model", "relu_nonorm", "--seq-len", str(LENGTH), "--out", str(bundle))
    alone = run(tmp_path, "--bundle", str(bundle))
    assert alone["perplexity"]["plain"] is None
    assert alone["agreement"] is None
    beside = run(tmp_path, "--bundle", str(bundle), "--model", "relu_nonorm")
    assert math.isclose(alone["perplexity"]["private"], beside["perplexity"]["plain"], rel_tol=0.02)


def test_perplexity_is_that_of_the_definition() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 1.0, 1.0]]]))
    assert perplexity(logits, torch.tensor([[0, 1, 2]])) == pytest.approx((0.25 * 0.8) ** -0.5)
    assert perplexity(logits * 1e6, torch.tensor([[0, 1, 0]])) is None


def test_agreement_compares_logits() -> None:
    plain, tokens = torch.tensor([[[1.0, 2.0], [3.0, 1.0]]]), torch.tensor([[0, 1]])
    private = plain + torch.tensor([[[0.0, -1.5], [0.5, 0.0]]])
    quality, agreement = compare_results(plain, private, RunInputs.of_tokens(tokens), "causal")
    assert agreement == Agreement(max_abs=1.5, mean_abs=0.5, top1=0.5, corrupted_positions=0)
    assert quality.excluding_corrupted is None


def test_corrupted_positions_are_counted_and_left_out() -> None:
    plain, tokens = torch.randn(1, 4, 3), torch.tensor([[0, 1, 2, 0]])
    private = plain.clone()
    private[0, 1, 0] = 2.0**32
    quality, agreement = compare_results(plain, private, RunInputs.of_tokens(tokens), "causal")
    assert agreement is not None
    assert agreement.corrupted_positions == 1
    assert quality.excluding_corrupted is not None
    intact = torch.tensor([[True, False, True, True]])
    assert quality.excluding_corrupted.private == pytest.approx(perplexity(plain, tokens, intact))
    assert (quality.private or math.inf) > 1e6


def test_a_bundle_of_another_model_or_length_is_refused(tmp_path: Path) -> None:
    stock = load_executable_protocol("crypten")
    two_party.export_bundle(ModelSource.parse("relu_nonorm", "tiny"), 8, tmp_path / "bundle", stock)
    for arguments, sentence in (
        (["--model", "gelu_nonorm"], "was not exported from gelu_nonorm"),
        (["--seq-len", "16"], "was exported for 8 tokens"),
    ):
        result = CliRunner().invoke(main, ["run", "two-party", "--bundle", str(tmp_path / "bundle"), *arguments])
        assert result.exit_code == 2
        assert sentence in result.stderr


def test_activations_out_of_a_domain_are_told_beforehand() -> None:
    model = ModelSource.parse("gelu_ln", "tiny").load()
    graph, tokens = capture_model(model, LENGTH), torch.arange(LENGTH)[None]
    with torch.no_grad():
        ranges = join_ranges(measure_ranges(evaluate_inputs(graph, model.state_dict(), {"tokens": tokens[None]})))
        sentences = list[str]()
        warn_of_domains(ranges, specs.load_executable_protocol("crypten"), sentences.append)
        assert [sentence.split(" is accurate")[0] for sentence in sentences] == ["gelu by erf-taylor"]
        warn_of_domains(ranges, specs.load_executable_protocol("crypten_tanh"), pytest.fail)


def test_halved_rows_keep_the_domain_of_their_mean() -> None:
    """LayerNorm subtracts the mean before it halves rows: a mean that does not fit is refused in any case."""
    op = Op("layernorm", ((1, 2),), (True,), (("eps", 1e-5), ("halvings", 2)))
    graph = Graph((), 0, nodes=[Node("norm", op, ("inputs.x",), "")], inputs={"inputs.x": (1, 2)})
    ranges = join_ranges(
        measure_ranges(evaluate_inputs(graph, {}, {"inputs.x": torch.tensor([[[30_000.0, 40_000.0]]])}))
    )
    bounds = {entry.quantity: entry.high for entry in ranges}
    assert bounds["|mean|"] == 35_000
    assert bounds["|centred input|"] == 1_250
    with pytest.raises(UsageError, match=r"layernorm by one-opening computes with \|mean\| from 0 to 16000 only"):
        warn_of_domains(ranges, load_executable_protocol("lean"), pytest.fail)


def test_shared_weights_and_a_kernel_for_the_servers_own_are_refused(tmp_path: Path) -> None:
    """The product would be that of one share."""
    text = Path("protocols/lean.toml").read_text(encoding="utf-8").replace('weights = "server"\n', "")
    (tmp_path / "shared.toml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(main, ["run", "two-party", "--protocol", str(tmp_path / "shared.toml")])
    assert result.exit_code == 2
    assert (
        "shares the weights, but its kernel for embedding is for a server that has them in the clear" in result.stderr
    )


def test_numbers_that_do_not_fit_their_words_are_refused() -> None:
    model = ModelSource.parse("relu_nonorm", "tiny").load()
    lean = load_executable_protocol("lean")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e6)
        graph, weights = two_party.rewrite_model(model, LENGTH, lean)
        ranges = join_ranges(
            measure_ranges(evaluate_inputs(graph, weights, {"tokens": torch.arange(LENGTH)[None, None]}))
        )
    with pytest.raises(UsageError, match=r"reveal by rounded computes with \|result\| from 0 to 32768 only"):
        warn_of_domains(ranges, lean, pytest.fail)


def test_a_bundle_carries_bounds_that_its_run_checks(tmp_path: Path) -> None:
    """A kernel that is inexact there is named; one whose words are too short refuses the run."""
    folder = tmp_path / "bundle"
    bundle = two_party.export_bundle(ModelSource.parse("gelu_ln", "tiny"), 8, folder, load_executable_protocol("lean"))
    assert all(f"{bound:.3g}" == f"{bound:.6g}" for entry in bundle.ranges for bound in (entry.low, entry.high))
    public = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
    for high, status, sentence in ((2e9, 2, "which does not fit its words"), (10.0, 0, "")):
        for entry in public["ranges"]:
            if (entry["op"], entry["quantity"]) == ("linear", "|result|"):
                entry["high"] = high
        (folder / "graph.json").write_text(json.dumps(public), encoding="utf-8")
        result = CliRunner().invoke(main, ["run", "two-party", "--bundle", str(folder), "--protocol", "lean"])
        assert result.exit_code == status
        assert sentence in result.stderr


def test_an_export_refuses_numbers_that_do_not_fit_their_words(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(ModelSource.parse("relu_nonorm", "tiny").folder, checkpoint)
    for factor, sentence in ((1e7, "does not fit its words"), (math.nan, "holds NaN or infinite numbers")):
        model = ModelSource.parse("relu_nonorm", "tiny").load()
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(factor)
        model.save_pretrained(checkpoint)
        result = CliRunner().invoke(
            main, ["export", "--model", str(checkpoint), "--protocol", "lean", "--out", str(tmp_path / "bundle")]
        )
        assert result.exit_code == 2
        assert sentence in result.stderr
        assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('reveal = "rounded"', 'reveal = "whole"', "computes logits of 32 bits with weights of the server; add reveal"),
        ('embedding = "server-weight"', 'embedding = "split-lookup"', "opens weights in two ways (embedding = "),
        ('linear = "server-weight"', 'linear = "fixed-weight"', "opens weights in two ways (embedding = "),
    ],
)
def test_kernels_that_do_not_fit_together_are_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    text = Path("protocols/lean.toml").read_text(encoding="utf-8").replace(old, new)
    (tmp_path / "mixed.toml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(main, ["run", "two-party", "--protocol", str(tmp_path / "mixed.toml")])
    assert result.exit_code == 2
    assert sentence in result.stderr


@pytest.mark.parties
def test_kernels_of_other_families_serve_a_rewritten_graph(tmp_path: Path) -> None:
    """They need not know the attributes that tell how to compute."""
    text = Path("protocols/lean.toml").read_text(encoding="utf-8")
    for op, name in (("layernorm", "normalised"), ("matmul", "faithful"), ("multiply", "faithful")):
        text = re.sub(f'^{op} = ".*"$', f'{op} = "{name}"', text, flags=re.MULTILINE)
    (tmp_path / "mixed.toml").write_text(text, encoding="utf-8")
    request = two_party.TwoPartyRequest(
        protocol=load_executable_protocol(str(tmp_path / "mixed.toml")),
        model=ModelSource.parse("gelu_ln", "tiny"),
        input=InputChoice(length=8),
    )
    record = two_party.run_two_party(request, pytest.fail, lambda fraction: None)
    assert record.agreement
    assert (record.agreement.max_abs or 1) < 0.01
