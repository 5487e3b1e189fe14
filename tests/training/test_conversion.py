"""Conversion: correct surgery on the correct weights, and a true record of the quality before and after it."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BloomConfig, BloomForCausalLM, GPT2LMHeadModel

from pi_sim import records
from pi_sim.errors import UsageError
from pi_sim.training import corpus, evaluation
from pi_sim.zoo import build
from pi_sim.zoo.layers import DyT
from tests.helpers.cli import invoke, refused
from tests.helpers.small_training import read_weights, train


@pytest.fixture(scope="module")
def normed(size: str, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint with LayerNorm and ReLU."""
    out = tmp_path_factory.mktemp("normed") / "out"
    result = train(size, texts, out, "--set", "norm=layernorm", "--set", "final_norm=layernorm")
    assert result.exit_code == 0, result.stderr
    return out


def loss(folder: Path, texts: Path) -> float:
    ids = evaluation.held_out_chunks(corpus.load_tokenizer(folder), corpus.load_corpus(str(texts)), 16)
    return evaluation.mean_loss(build.load_checkpoint(folder), ids)


def test_the_record_has_the_quality_before_and_after(normed: Path, texts: Path, tmp_path: Path) -> None:
    result = invoke("convert", normed, "--activation", "gelu", "--norm", "none", "--out", tmp_path / "new")
    assert result.exit_code == 0, result.stderr
    record, source = records.load(tmp_path / "new" / "record.json"), records.load(normed / "record.json")
    assert record.kind == "conversion"
    assert record.surgery == {"norm": "none", "activation": "gelu"}
    assert record.architecture == source.architecture.model_copy(update=record.surgery)
    assert record.corpus.sha256 == source.corpus.sha256
    assert record.before.loss == pytest.approx(source.held_out.loss, rel=1e-6)
    assert record.after.loss == pytest.approx(loss(tmp_path / "new", texts), rel=1e-4)
    assert record.after.loss != pytest.approx(record.before.loss, rel=1e-4)


def test_weights_that_no_switch_affects_are_unchanged(normed: Path, tmp_path: Path) -> None:
    assert invoke("convert", normed, "--norm", "dyt", "--out", tmp_path / "new").exit_code == 0
    before, after = read_weights(normed), read_weights(tmp_path / "new")
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert {name.rpartition(".")[2] for name in after.keys() - before.keys()} == {"alpha"}


def inputs(folder: Path, path: str, ids: Tensor) -> Tensor:
    """Return the input of a module of the checkpoint's model."""
    captured: list[Tensor] = []
    model = build.load_checkpoint(folder)
    model.get_submodule(path).register_forward_pre_hook(lambda module, args: captured.append(args[0]))
    with torch.no_grad():
        model(ids)
    return captured[0]


@pytest.mark.parametrize(("squash", "rectified"), [("dyt", []), ("dyt", ["--relu-after-norm"]), ("derf", [])])
def test_dyt_and_derf_start_at_the_slope_of_the_norm(
    squash: str, rectified: list[str], normed: Path, tmp_path: Path
) -> None:
    """At zero tanh has slope 1, and erf 2 / sqrt(pi)."""
    result = invoke("convert", normed, "--norm", squash, "--final-norm", squash, *rectified, "--out", tmp_path / "new")
    assert result.exit_code == 0, result.stderr
    ids = evaluation.held_out_tokens(normed, 8, 16)
    model = build.load_checkpoint(tmp_path / "new")
    alphas = {path: module.alpha.item() for path, module in model.named_modules() if isinstance(module, DyT)}
    assert len(alphas) == 3
    for path, alpha in alphas.items():
        std = inputs(normed, path.removesuffix(".norm"), ids).std().item()
        expected = 1 / std if squash == "dyt" else math.sqrt(math.pi) / (2 * std)
        assert alpha == pytest.approx(expected, rel=1e-2)


def test_chosen_and_unaffected_alphas_are_preserved(normed: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    named = ("--set", "alpha_attention=0.5", "--set", "alpha_other=1")
    assert invoke("convert", normed, "--norm", "dyt", "--final-norm", "dyt", *named, "--out", first).exit_code == 0
    assert invoke("convert", first, "--activation", "gelu", "--out", second).exit_code == 0
    for folder in (first, second):
        modules = build.load_checkpoint(folder).modules()
        alphas = [module.alpha.item() for module in modules if isinstance(module, DyT)]
        assert alphas == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "there is nothing to convert; name a switch"),
        (["--activation", "sine"], "'activation': Input should be"),
        (["--ffn", "fused"], "needs norm = none as well"),
        (["--drop-ffn", "7"], "has no layer 7"),
        (["--set", "nonsense=1"], "is not KEY=VALUE with a key among"),
        (["--ffn", "mlp"], "ffn = mlp changes nothing"),
        (["--activation", "gelu", "--set", "temperature=false"], "temperature = False changes nothing"),
        (["--set", "alpha_other=0.2"], "does nothing unless norm or final_norm is dyt"),
        (["--activation", "gelu", "--seq-len", "17"], "context is 16 tokens; choose --seq-len between 2 and 16"),
        (["--activation", "gelu", "--corpus", "nowhere"], "there is no corpus nowhere"),
    ],
)
def test_impossible_conversions_are_one_sentence_and_leave_nothing(
    arguments: list[str], complaint: str, normed: Path, tmp_path: Path
) -> None:
    result = invoke("convert", normed, *arguments, "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_model_that_predicts_no_next_token_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    BertForMaskedLM(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(folder)
    result = invoke("convert", folder, "--activation", "relu", "--out", tmp_path / "out")
    assert "BertForMaskedLM predicts no next token" in refused(result)


def test_a_second_conversion_replaces_settings_of_the_first(normed: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    named = ("--activation", "leaky_relu", "--set", "slope=0.1", "--norm", "dyt", "--set", "alpha_other=0.5")
    assert invoke("convert", normed, *named, "--out", first).exit_code == 0
    assert invoke("convert", first, "--activation", "relu", "--norm", "rmsnorm", "--out", second).exit_code == 0
    assert build.load_checkpoint(second).config.pi_sim == {"activation": "relu", "norm": "rmsnorm"}
    record = records.load(second / "record.json")
    design = record.architecture
    assert (design.activation, design.slope, design.norm, design.alpha_other) == ("relu", 0.01, "rmsnorm", 1.0)
    assert record.before.loss == pytest.approx(records.load(first / "record.json").after.loss, rel=1e-3)


def test_the_length_can_be_chosen(normed: Path, texts: Path, tmp_path: Path) -> None:
    assert invoke("convert", normed, "--activation", "gelu", "--seq-len", "8", "--out", tmp_path / "new").exit_code == 0
    record = records.load(tmp_path / "new" / "record.json")
    chunks = evaluation.held_out_chunks(corpus.load_tokenizer(normed), corpus.load_corpus(str(texts)), 8)
    assert record.seq_len == 8
    assert record.before.tokens == chunks[:, 1:].numel()
    assert record.before.loss == pytest.approx(evaluation.mean_loss(build.load_checkpoint(normed), chunks), rel=1e-6)


def test_a_config_without_a_context_needs_a_length(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path / "bloom")
    result = invoke("convert", tmp_path / "bloom", "--activation", "relu", "--out", tmp_path / "new")
    assert (result.exit_code, "does not state its context; give --seq-len" in result.stderr) == (2, True)
    assert len(result.stderr.splitlines()) == 1


def test_long_sequences_are_evaluated_in_small_batches(
    normed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is 3 x 16 tokens here; by default it is 4 sequences of 1,024 tokens."""
    batch_sizes: list[int] = []
    forward = GPT2LMHeadModel.forward

    def count(model: GPT2LMHeadModel, ids: Tensor, **more: object) -> object:
        batch_sizes.append(len(ids))
        return forward(model, ids, **more)

    monkeypatch.setattr(evaluation, "POSITION_LIMIT", 48)
    monkeypatch.setattr(GPT2LMHeadModel, "forward", count)
    assert invoke("convert", normed, "--norm", "dyt", "--out", tmp_path / "new").exit_code == 0
    assert max(batch_sizes) == 3
    assert evaluation.batch_limit(10**6) == 1


def test_a_checkpoint_that_does_not_load_is_removed(
    normed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new checkpoint is loaded from its staging folder."""
    load = build.load_checkpoint

    def refuse(folder: Path) -> object:
        if folder == normed:
            return load(folder)
        assert not (tmp_path / "new").exists()
        raise UsageError("the weights do not load.")

    monkeypatch.setattr(build, "load_checkpoint", refuse)
    result = invoke("convert", normed, "--activation", "gelu", "--out", tmp_path / "new")
    assert (result.exit_code, result.stderr) == (2, "pi-sim: the weights do not load.\n")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(normed: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    result = invoke("convert", normed, "--activation", "gelu", "--out", tmp_path)
    assert result.exit_code == 2
    assert "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
