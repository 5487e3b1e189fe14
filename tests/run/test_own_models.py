"""Anybody's Hugging Face folder and text: loaded by its architecture, run privately, answered in words."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from pi_sim import records
from pi_sim.cli import main
from pi_sim.records import RunRecord

VOCABULARY = 64
TEXT = "The quick brown fox jumps over the lazy dog. " * 12
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
LABELS = {0: "sad", 1: "glad", 2: "neither"}
MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SMALL)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(intermediate_size=48, num_key_value_heads=2, **SMALL)),
    "bert-masked": lambda: BertForMaskedLM(BertConfig(intermediate_size=48, **SMALL)),
    "bert-labels": lambda: BertForSequenceClassification(BertConfig(intermediate_size=48, id2label=LABELS, **SMALL)),
    "bert-encoder": lambda: BertModel(BertConfig(intermediate_size=48, **SMALL)),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    learned = Tokenizer(models.BPE(unk_token="[UNK]"))
    learned.pre_tokenizer = pre_tokenizers.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["[UNK]"])
    learned.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=learned, unk_token="[UNK]")


@pytest.fixture
def save(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Callable[..., Path]:
    """Return a function that saves a model, in half precision and several files if asked to, with its tokenizer."""

    def save_model(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
        torch.manual_seed(0)
        model = MODELS[name]().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        folder = tmp_path / name
        model.to(dtype).save_pretrained(folder, **options)
        tokenizer.save_pretrained(folder)
        return folder

    return save_model


def run(folder: Path, *options: str | Path) -> Result:
    arguments = ["run", "two-party", "--model", folder, "--protocol", "lean", *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_record(folder: Path, *options: str | Path) -> tuple[RunRecord, str]:
    """Run a model; return the record and what was printed."""
    path = folder.with_suffix(".run.json")
    result = run(folder, *options, "--json", path)
    assert result.exit_code == 0, result.output
    return records.load(path, RunRecord), result.stdout


@pytest.mark.parties
@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [("gpt2", torch.float16, {}), ("llama", torch.bfloat16, {"max_shard_size": "20KB"})],
)
def test_a_causal_model_reads_a_users_text(
    save: Callable[..., Path], tmp_path: Path, name: str, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    text = ["--text", tmp_path / "text.txt", "--seq-len", "8", "--sequences", "2"]
    record, printed = run_record(save(name, dtype, **options), *text)
    assert (record.sequences, record.seq_len, record.answers) == (2, 8, ())
    assert record.perplexity and record.perplexity.plain and record.perplexity.private
    assert record.perplexity.private == pytest.approx(record.perplexity.plain, rel=0.01)
    assert "perplexity " in printed


@pytest.mark.parties
def test_a_prompt_is_answered_by_its_next_token(save: Callable[..., Path]) -> None:
    record, printed = run_record(save("gpt2"), "--prompt", "The quick brown")
    assert record.perplexity is None
    assert "perplexity" not in printed
    assert len(record.answers) == 5
    for answer in record.answers:
        assert answer.private == pytest.approx(answer.plain, abs=0.01)
    assert record.answers[0].text in printed


@pytest.mark.parties
def test_a_classifier_names_its_labels(save: Callable[..., Path]) -> None:
    record, _ = run_record(save("bert-labels"), "--prompt", "the lazy dog")
    assert {answer.text for answer in record.answers} == set(LABELS.values())
    assert sum(answer.private for answer in record.answers) == pytest.approx(1)
    assert record.agreement
    assert (record.agreement.max_abs or 1) < 0.01


@pytest.mark.parties
def test_a_masked_model_has_no_perplexity(save: Callable[..., Path]) -> None:
    record, _ = run_record(save("bert-masked"), "--prompt", "the lazy dog")
    assert (record.perplexity, record.answers) == (None, ())
    assert record.agreement
    assert (record.agreement.max_abs or 1) < 0.01


@pytest.mark.parties
def test_a_bundle_has_the_tokenizer_of_its_model(save: Callable[..., Path], tmp_path: Path) -> None:
    folder, bundle = save("bert-labels"), tmp_path / "bundle"
    exported = CliRunner().invoke(
        main, ["export", "--model", str(folder), "--protocol", "lean", "--seq-len", "5", "--out", str(bundle)]
    )
    assert exported.exit_code == 0, exported.output
    assert "names no text; the bounds of its values are measured on random token ids" in exported.stderr
    assert json.loads((bundle / "graph.json").read_text(encoding="utf-8"))["origin"]["labels"] == list(LABELS.values())
    words = run(folder, "--bundle", bundle, "--prompt", TEXT[:40])
    assert words.exit_code == 2
    assert "was exported for 5 tokens, the prompt has " in words.stderr


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("gpt2", [], "has no record.json that names its corpus; use a checkpoint that pi-sim trained"),
        ("gpt2", ["--prompt", "a", "--text", "b"], "--text and --prompt are two inputs"),
        ("gpt2", ["--text", "nowhere.txt"], "there is no file nowhere.txt"),
        ("gpt2", ["--text", "README.md", "--sequences", "100000"], "too few for 100000 sequences of 24"),
        ("gpt2", ["--prompt", TEXT], "give 1 to 24, the model's context"),
        ("gpt2", ["--prompt", ""], "give 1 to 24, the model's context"),
        ("gpt2", ["--prompt", "the dog", "--seq-len", "9"], "leave --seq-len out"),
        ("bert-encoder", ["--prompt", "the dog"], "BertModel has no logits to open"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(
    save: Callable[..., Path], name: str, options: list[str], sentence: str
) -> None:
    result = run(save(name), *options)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_damaged_folder_is_one_sentence(save: Callable[..., Path], tmp_path: Path) -> None:
    folder = save("gpt2")
    model = GPT2LMHeadModel.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.h[1].attn.c_attn.weight[0, 0] = torch.nan
    model.save_pretrained(folder)
    result = run(folder, "--prompt", "the dog")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "transformer.h.1.attn.c_attn.weight" in result.stderr
    assert "holds NaN or infinite numbers" in result.stderr
    for name in folder.glob("tokenizer*"):
        name.unlink()
    result = run(folder, "--prompt", "the dog")
    assert result.exit_code == 2
    assert "has no tokenizer (tokenizer.json, " in result.stderr


def test_a_tokenizer_beyond_the_vocabulary_is_refused(save: Callable[..., Path]) -> None:
    folder = save("gpt2")
    GPT2LMHeadModel(GPT2Config(**{**SMALL, "vocab_size": 20})).save_pretrained(folder)
    result = run(folder, "--prompt", "the lazy dog")
    assert result.exit_code == 2
    assert "has a tokenizer of more than the model's 20 tokens" in result.stderr


def cache_model(folder: Path, cache: Path) -> None:
    """Put a saved model into a Hub cache, as a download would."""
    repository = cache / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("1234", encoding="utf-8")
    shutil.copytree(folder, repository / "snapshots" / "1234")


@pytest.mark.parties
def test_a_model_of_the_hub_comes_from_its_cache(
    save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_model(save("gpt2"), tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = tmp_path / "run.json"
    result = run(Path("org/name"), "--prompt", "the dog", "--json", path)
    assert result.exit_code == 0, result.output
    assert records.load(path, RunRecord).model == "org/name"
    result = run(Path("org/other"), "--prompt", "the dog")
    assert result.exit_code == 2
    assert result.stderr == (
        "pi-sim: org/other is no folder here, and not in the cache of the Hugging Face Hub, which cannot be reached; "
        "give a path, or download it on a machine with a connection.\n"
    )
