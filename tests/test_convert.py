"""Conversion: the right surgery on the right weights, and a record that tells the truth about both sides of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from trainings import cli, train, weights

from pi_sim import records
from pi_sim.training import corpus, held_out, tokenizer
from pi_sim.zoo import build
from pi_sim.zoo.layers import DyT


@pytest.fixture(scope="module")
def normed(size: str, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint with LayerNorm and ReLU."""
    out = tmp_path_factory.mktemp("normed") / "out"
    result = train(size, texts, out, "--set", "norm=layernorm", "--set", "final_norm=layernorm")
    assert result.exit_code == 0, result.stderr
    return out


def loss(folder: Path, texts: Path) -> float:
    ids = held_out.chunks(tokenizer.load(folder), corpus.load(str(texts)), 16)
    return held_out.loss(build.load(folder), ids)


def test_the_record_tells_both_sides(normed: Path, texts: Path, tmp_path: Path) -> None:
    result = cli("convert", normed, "--activation", "gelu", "--norm", "none", "--out", tmp_path / "new")
    assert result.exit_code == 0, result.stderr
    found, source = records.load(tmp_path / "new" / "record.json"), records.load(normed / "record.json")
    assert found["kind"] == "conversion"
    assert found["surgery"] == {"norm": "none", "activation": "gelu"}
    assert found["architecture"] == {**source["architecture"], **found["surgery"]}
    assert found["corpus"]["sha256"] == source["corpus"]["sha256"]
    assert found["before"]["loss"] == pytest.approx(source["held_out"]["loss"], rel=1e-6)
    assert found["after"]["loss"] == pytest.approx(loss(tmp_path / "new", texts), rel=1e-4)
    assert found["after"]["loss"] != pytest.approx(found["before"]["loss"], rel=1e-4)


def test_weights_that_no_switch_names_stay(normed: Path, tmp_path: Path) -> None:
    assert cli("convert", normed, "--norm", "dyt", "--out", tmp_path / "new").exit_code == 0
    before, after = weights(normed), weights(tmp_path / "new")
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert {name.rpartition(".")[2] for name in after.keys() - before.keys()} == {"alpha"}


def inputs(folder: Path, path: str, ids: Tensor) -> Tensor:
    """What a module of the checkpoint's model reads."""
    seen: list[Tensor] = []
    model = build.load(folder)
    model.get_submodule(path).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(ids)
    return seen[0]


@pytest.mark.parametrize("rectified", [[], ["--relu-after-norm"]])
def test_dyt_starts_at_the_spread_of_what_the_norm_read(
    rectified: list[str], normed: Path, texts: Path, tmp_path: Path
) -> None:
    result = cli("convert", normed, "--norm", "dyt", "--final-norm", "dyt", *rectified, "--out", tmp_path / "new")
    assert result.exit_code == 0, result.stderr
    ids = held_out.held_out_tokens(normed, 8, 16)
    model = build.load(tmp_path / "new")
    alphas = {path: each.alpha.item() for path, each in model.named_modules() if isinstance(each, DyT)}
    assert len(alphas) == 3
    for path, alpha in alphas.items():
        spread = inputs(normed, path.removesuffix(".norm"), ids).std().item()
        assert alpha == pytest.approx(1 / spread, rel=1e-2)


def test_an_alpha_that_is_named_is_kept_and_so_is_one_that_is_not_touched(normed: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    named = ("--set", "alpha_attention=0.5", "--set", "alpha_other=1")
    assert cli("convert", normed, "--norm", "dyt", "--final-norm", "dyt", *named, "--out", first).exit_code == 0
    assert cli("convert", first, "--activation", "gelu", "--out", second).exit_code == 0
    for folder in (first, second):
        alphas = [each.alpha.item() for each in build.load(folder).modules() if isinstance(each, DyT)]
        assert alphas == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "there is nothing to convert; name a switch"),
        (["--activation", "sine"], "'activation': Input should be"),
        (["--ffn", "fused"], "needs norm = none as well"),
        (["--drop-ffn", "7"], "has no layer 7"),
        (["--set", "nonsense=1"], "is not KEY=VALUE with a key among"),
        (["--activation", "gelu", "--corpus", "nowhere"], "there is no corpus nowhere"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence_and_leaves_nothing(
    arguments: list[str], complaint: str, normed: Path, tmp_path: Path
) -> None:
    result = cli("convert", normed, *arguments, "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(normed: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    result = cli("convert", normed, "--activation", "gelu", "--out", tmp_path)
    assert result.exit_code == 2
    assert "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
