"""Training: the corpus and its split, the tokenizer, interruption and continuation, and the weights that ship."""

import random
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result

from pi_sim import records, specs
from pi_sim.cli import main
from pi_sim.errors import UsageError
from pi_sim.training import checkpoints, corpus, held_out, manifest, plan, progress, tokenizer, trainer
from pi_sim.training.corpus import Corpus, Document
from pi_sim.zoo import build, catalogue

SIZE = """
name = "small"
title = "for tests"
layers = 1
heads = 2
width = 16
context = 16
vocabulary = 300

[training]
tokens = 1280
batch_size = 8
learning_rate = 1e-3
warmup_ratio = 0.05
weight_decay = 0.1
max_grad_norm = 1.0
init_std = 0.05
embedding_scale = 4.0
logit_scale = 4.0
bf16 = false
"""
STEPS = 10
SHIPPED = [name for name in specs.names("models") if catalogue.weights_folder(name, "tiny").is_dir()]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 120 short files."""
    folder, words = tmp_path_factory.mktemp("texts"), ["alpha", "beta", "gamma", "delta", "\n"]
    draw = random.Random(0)
    for number in range(120):
        (folder / f"{number}.txt").write_text(f"{number} " + " ".join(draw.choices(words, k=120)))
    return folder


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("size") / "small.toml"
    path.write_text(SIZE)
    return str(path)


def make(size: str, texts: Path, *settings: str, seed: int = 0) -> plan.Plan:
    return plan.make("relu_nonorm", size, str(texts), seed, None, settings)


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


# The corpus


def test_the_split_is_by_path_alone_and_leaves_nothing_out(texts: Path) -> None:
    text = corpus.load(str(texts))
    training, kept = ({each.path for each in part} for part in (text.training, text.held_out))
    assert not training & kept
    assert len(training | kept) == 120
    assert text.sha256 == corpus.load(str(texts)).sha256
    assert Document("a.py", "one").held_out == Document("a.py", "two").held_out


def test_equal_texts_count_once(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}.txt").write_text(str(number // 2))
    assert len(corpus.load(str(tmp_path)).documents) == 100


def test_one_long_file_can_be_split(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\n".join(map(str, range(1000))))
    text = corpus.load(str(tmp_path / "long.txt"))
    assert text.held_out
    assert "".join(document.text for document in text.documents) == (tmp_path / "long.txt").read_text()


@pytest.mark.parametrize("name", ["/no/such/corpus", "empty"])
def test_a_corpus_without_text_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"corpus"):
        corpus.load(name)


def test_the_default_corpus_is_the_committed_one() -> None:
    assert manifest.differences(corpus.load("packages")) == []


@pytest.mark.parametrize(("version", "complaint"), [("0.1", "not sympy 0.1"), (None, "other bytes than sympy")])
def test_a_different_corpus_is_told_by_package(
    version: str | None, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = manifest.committed()
    sympy = known.packages["sympy"]
    changed = sympy.model_copy(update={"sha256": "0", "version": version or sympy.version})
    altered = known.model_copy(update={"sha256": "0", "packages": {**known.packages, "sympy": changed}})
    monkeypatch.setattr(manifest, "committed", lambda: altered)
    monkeypatch.setattr(manifest, "describe", lambda corpus: known)
    (sentence,) = manifest.differences(Corpus("packages", ()))
    assert complaint in sentence


# The tokenizer


def test_the_tokenizer_gives_back_every_byte(texts: Path) -> None:
    documents = corpus.load(str(texts)).training
    encoder = tokenizer.train(documents, 300)
    hard = Document("hard", "tab\t é 😀 <|endoftext|> \r\n")
    (ids,) = tokenizer.encode(encoder, [hard])
    assert encoder.decode(ids[:-1].tolist()) == hard.text
    assert (ids == 0).nonzero().tolist() == [[len(ids) - 1]]


def test_chunks_are_full_and_in_order() -> None:
    chunks = tokenizer.chunks([torch.arange(5), torch.arange(5, 11)], 4)
    assert chunks.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


# The plan


def test_settings_override_design_and_recipe(size: str, texts: Path) -> None:
    chosen = make(size, texts, "final_norm=layernorm", "logit_scale=none", "learning_rate=0.5", seed=3)
    assert chosen.card.architecture.final_norm == "layernorm"
    assert chosen.recipe.logit_scale is None
    assert chosen.recipe.learning_rate == 0.5
    assert chosen.title == "relu_nonorm-small-final_norm=layernorm-learning_rate=0.5-logit_scale=none-seed3"


@pytest.mark.parametrize("setting", ["depth=3", "final_norm", "final_norm=batchnorm", "learning_rate=fast", "tokens=0"])
def test_a_wrong_setting_is_one_sentence_and_status_2(setting: str) -> None:
    result = cli("train", "--model", "relu_nonorm", "--set", setting)
    assert result.exit_code == 2
    assert setting.split("=")[0] in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


# The training


@pytest.fixture(scope="module")
def trained(size: str, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing interrupted."""
    out = tmp_path_factory.mktemp("trained") / "out"
    result = cli("train", "--model", "relu_nonorm", "--size", size, "--corpus", texts, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


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


def test_the_record_tells_the_checkpoint_s_quality(trained: Path, texts: Path) -> None:
    model, record = build.load(trained), records.load(trained / "record.json")
    ids = held_out.chunks(tokenizer.load(trained), corpus.load(str(texts)), 16)
    assert held_out.loss(model, ids) == pytest.approx(record["held_out"]["loss"], rel=1e-5)
    assert record["held_out"]["tokens"] == ids[:, 1:].numel()


def test_held_out_tokens_are_the_first_chunks(trained: Path, texts: Path) -> None:
    ids = held_out.chunks(tokenizer.load(trained), corpus.load(str(texts)), 16)
    few = held_out.held_out_tokens(trained, 3, 16)
    assert few.dtype == torch.int64
    assert torch.equal(few, ids[:3])
    with pytest.raises(UsageError, match="ask for at most"):
        held_out.held_out_tokens(trained, 10**6, 16)


class Impatient(progress.Stop):
    """Somebody who presses Ctrl-C during the fourth step."""

    def on_step_begin(self, args: object, state: object, control: object, **_: object) -> None:
        if getattr(state, "global_step", 0) == 3:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_training_continues_to_the_same_weights(
    trained: Path, size: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "--model", "relu_nonorm", "--size", size, "--corpus", texts, "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "Stop", Impatient)
        stopped = cli(*command)
    assert stopped.exit_code == 130
    assert "stopped after 4 of 10 steps; repeat the command" in stopped.stderr
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert cli(*command).exit_code == 0
    whole, resumed = weights(trained), weights(tmp_path / "out")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    curves = [records.load(folder / "record.json")["loss_curve"] for folder in (trained, tmp_path / "out")]
    assert curves[0] == curves[1]


def test_a_checkpoint_that_a_crash_cut_off_is_passed_over(tmp_path: Path) -> None:
    for step in (8, 16, 120):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert checkpoints.last(tmp_path) is None
    for step in (8, 16):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").touch()
    assert checkpoints.last(tmp_path) == str(tmp_path / "checkpoint-16")


def test_a_training_that_cannot_be_written_says_so(size: str, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = cli("train", "--model", "relu_ln", "--size", size, "--corpus", texts, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "cannot be written: Not a directory" in result.stderr


def test_another_training_does_not_continue_an_interrupted_one(size: str, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "plan.json").write_text("{}")
    with pytest.raises(UsageError, match="other settings"):
        trainer.train(make(size, texts), tmp_path)


def test_a_folder_in_use_is_left_alone(trained: Path, size: str, texts: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        trainer.train(make(size, texts), trained)


# The weights that ship


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_reproduce_their_record(name: str) -> None:
    folder = catalogue.weights_folder(name, "tiny")
    sample = records.load(folder / "record.json")["held_out"]["sample"]
    ids = held_out.held_out_tokens(folder, sample["sequences"], specs.size("tiny").context)
    assert held_out.loss(build.load_model(name, "tiny"), ids) == pytest.approx(sample["loss"], rel=1e-4)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_records_fit_their_cards(name: str) -> None:
    record = records.load(catalogue.weights_folder(name, "tiny") / "record.json")
    assert record["architecture"] == specs.model_card(name).architecture.model_dump()
    assert record["recipe"] == specs.size("tiny").training.model_dump()
    assert record["corpus"]["sha256"] == manifest.committed().sha256


def test_models_lists_every_card_and_size() -> None:
    lines = cli("models").stdout.splitlines()
    assert len(lines) == 1 + len(specs.names("models")) * len(specs.names("models/sizes"))
    assert [line.split()[0] for line in lines if "shipped" in line] == SHIPPED
