"""Training: the plan and its overrides, and the checkpoint and the record that a training leaves."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from trainings import STEPS, cli, make, train, weights

from pi_sim import records
from pi_sim.errors import UsageError
from pi_sim.training import corpus, held_out, tokenizer
from pi_sim.zoo import build

# The plan


def test_settings_override_design_and_recipe(size: str, texts: Path) -> None:
    chosen = make(size, texts, "final_norm=layernorm", "logit_scale=none", "learning_rate=0.5", seed=3)
    assert chosen.card.architecture.final_norm == "layernorm"
    assert chosen.recipe.logit_scale is None
    assert chosen.recipe.learning_rate == 0.5
    assert chosen.title == "relu_nonorm-small-final_norm=layernorm-learning_rate=0.5-logit_scale=none-seed3"


@pytest.mark.parametrize(
    "setting", ["depth=3", "final_norm", "final_norm=batchnorm", "learning_rate=fast", "learning_rate=inf", "tokens=0"]
)
def test_a_wrong_setting_is_one_sentence_and_status_2(setting: str) -> None:
    result = cli("train", "--model", "relu_nonorm", "--set", setting)
    assert result.exit_code == 2
    assert setting.split("=")[0] in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("first", [("--tokens", "5"), ("--set", "tokens=5")])
def test_a_setting_given_twice_is_refused(first: tuple[str, str]) -> None:
    result = cli("train", "--model", "relu_nonorm", *first, "--set", "tokens=7")
    assert result.exit_code == 2
    assert "tokens is set twice" in result.stderr


# The training


def test_a_checkpoint_is_complete(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "record.json",
    }
    assert {weight.dtype for weight in weights(trained).values()} == {torch.float16}
    record = records.load(trained / "record.json")
    assert [step for step, _ in record["loss_curve"]] == list(range(1, STEPS + 1))
    assert record["corpus"]["tokens_seen"] == 1280
    assert record["seconds"] > 0
    assert record["threads"] == torch.get_num_threads()
    assert record["parameters"] - record["trained_parameters"] == 300 * 16  # the head, tied while it was trained


def test_more_than_one_pass_over_the_corpus_is_told(trained: Path, size: str, texts: Path, tmp_path: Path) -> None:
    assert records.load(trained / "record.json")["corpus"]["epochs"] < 1
    result = train(size, texts, tmp_path / "out", "--tokens", "14000")
    assert "14,080 tokens are 1.1 passes" in result.stderr
    assert records.load(tmp_path / "out" / "record.json")["corpus"]["epochs"] > 1


def test_a_training_that_diverges_says_so_in_its_record_and_on_stderr(size: str, texts: Path, tmp_path: Path) -> None:
    result = train(size, texts, tmp_path / "out", "--set", "learning_rate=1e30")
    assert "diverged" in result.stderr
    assert records.load(tmp_path / "out" / "record.json")["held_out"]["loss"] is None


def test_several_gpus_are_refused(size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "choose one" in train(size, texts, tmp_path / "out").stderr


def test_an_output_folder_inside_the_corpus_is_refused(size: str, texts: Path) -> None:
    assert "give another --out" in train(size, texts, texts / "runs" / "out").stderr


def test_the_record_tells_the_checkpoint_s_quality(trained: Path, texts: Path) -> None:
    model, record = build.load(trained), records.load(trained / "record.json")
    ids = held_out.chunks(tokenizer.load(trained), corpus.load(str(texts)), 16)
    assert held_out.loss(model, ids) == pytest.approx(record["held_out"]["loss"], rel=1e-5)
    assert record["held_out"]["tokens"] == ids[:, 1:].numel()


@pytest.mark.parametrize(
    ("lacking", "complaint"),
    [
        ("tokenizer.json", "has no tokenizer.json"),
        ("record.json", "has no record.json"),
        ("corpus", "does not tell the name and sha256"),
        ("name", "does not tell the name and sha256"),
    ],
)
def test_a_checkpoint_without_a_corpus_is_refused(lacking: str, complaint: str, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "mine"))
    held_out.require(folder)
    if lacking.endswith(".json"):
        (folder / lacking).unlink()
    else:
        record = records.load(folder / "record.json")
        (record["corpus"] if lacking == "name" else record).pop(lacking)
        (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=f"mine.* {complaint}"):
        held_out.require(folder)


def test_held_out_tokens_are_the_first_chunks(trained: Path, texts: Path) -> None:
    ids = held_out.chunks(tokenizer.load(trained), corpus.load(str(texts)), 16)
    few = held_out.held_out_tokens(trained, 3, 16)
    assert few.dtype == torch.int64
    assert torch.equal(few, ids[:3])
    with pytest.raises(UsageError, match="ask for at most"):
        held_out.held_out_tokens(trained, 10**6, 16)
