"""Anybody's Hugging Face folder and text: loaded by its architecture, run privately, answered in words."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
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
    "mixtral": lambda: MixtralForCausalLM(
        MixtralConfig(intermediate_size=48, num_key_value_heads=2, num_local_experts=4, **SMALL)
    ),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, decoder_start_token_id=0)
    ),
    "bart": lambda: BartForConditionalGeneration(
        BartConfig(
            vocab_size=VOCABULARY,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=24,
        )
    ),
    "bert-masked": lambda: BertForMaskedLM(BertConfig(intermediate_size=48, **SMALL)),
    "bert-labels": lambda: BertForSequenceClassification(BertConfig(intermediate_size=48, id2label=LABELS, **SMALL)),
    "bert-tokens": lambda: BertForTokenClassification(BertConfig(intermediate_size=48, id2label=LABELS, **SMALL)),
    "vit": lambda: ViTForImageClassification(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            image_size=8,
            patch_size=4,
            id2label=LABELS,
        )
    ),
    "bert-encoder": lambda: BertModel(BertConfig(intermediate_size=48, **SMALL)),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    learned = Tokenizer(models.BPE(unk_token="[UNK]"))
    learned.pre_tokenizer = pre_tokenizers.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["[UNK]", "[MASK]"])
    learned.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=learned, unk_token="[UNK]", mask_token="[MASK]")


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
        if name == "vit":
            ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
        else:
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
def test_massive_activations_fit_their_words(save: Callable[..., Path]) -> None:
    """A residual stream beyond 2^14, as trained models have it, is halved at every norm that reads it."""
    folder = save("llama")
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 3] *= 40_000 / model.model.embed_tokens.weight[:, 3].abs().max()
    model.save_pretrained(folder)
    record, _ = run_record(folder, "--prompt", "The quick brown")
    assert record.agreement
    assert (record.agreement.max_abs or 1) < 0.01
    for answer in record.answers:
        assert answer.private == pytest.approx(answer.plain, abs=0.01)


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


LINES = ["the lazy dog", "The quick brown fox jumps over", "a fox"]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n\n".join(LINES) + "\n", encoding="utf-8")
    return path


@pytest.mark.parties
def test_an_encoder_gives_a_vector_of_every_line(save: Callable[..., Path], tmp_path: Path, lines: Path) -> None:
    """Three lines of different lengths in two batches: the vectors are transformers', pooled over tokens alone."""
    folder = save("bert-encoder")
    record, printed = run_record(folder, "--text", lines, "--batch", "2", "--out", tmp_path / "vectors.npy")
    assert (record.sequences, record.batch, record.perplexity) == (2, 2, None)
    assert record.measured.rounds == record.total.rounds
    assert [vector.input for vector in record.vectors] == LINES
    assert min(vector.cosine or 0 for vector in record.vectors) > 0.9999
    assert "cosine" in printed
    model, tokenizer = BertModel.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    vectors = np.load(tmp_path / "vectors.npy")
    for line, vector in zip(LINES, vectors, strict=True):
        with torch.no_grad():
            hidden = model(torch.tensor([tokenizer(line)["input_ids"]])).last_hidden_state
        assert vector == pytest.approx(hidden.mean(1)[0].numpy(), abs=0.01)


@pytest.mark.parties
def test_a_classifier_labels_every_line(save: Callable[..., Path], lines: Path) -> None:
    record, _ = run_record(save("bert-labels"), "--text", lines, "--batch", "3", "--hide-length", "24")
    assert (record.sequences, record.batch, record.seq_len) == (1, 3, 24)
    assert [answer.input for answer in record.answers] == LINES
    for answer in record.answers:
        assert answer.private == pytest.approx(answer.plain, abs=0.01)


@pytest.mark.parties
def test_padding_is_no_part_of_a_perplexity(save: Callable[..., Path], lines: Path) -> None:
    folder = save("gpt2")
    record, _ = run_record(folder, "--text", lines, "--sequences", "2", "--batch", "2")
    model, tokenizer = GPT2LMHeadModel.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    losses: list[float] = []
    for line in LINES[:2]:
        ids = torch.tensor([tokenizer(line)["input_ids"]])
        with torch.no_grad():
            losses += functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none").tolist()
    assert record.perplexity
    assert record.perplexity.plain == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
    assert record.perplexity.private == pytest.approx(record.perplexity.plain, rel=0.01)


@pytest.mark.parties
def test_a_hidden_length_changes_no_answer(save: Callable[..., Path]) -> None:
    folder = save("gpt2")
    told, hidden = (run_record(folder, "--prompt", TEXT[:12], *more)[0] for more in ([], ["--hide-length", "20"]))
    assert (told.seq_len < 20, hidden.seq_len) == (True, 20)
    assert [answer.text for answer in hidden.answers] == [answer.text for answer in told.answers]


@pytest.mark.parties
def test_a_mask_is_filled_in_and_tokens_are_labelled(save: Callable[..., Path]) -> None:
    record, _ = run_record(save("bert-masked"), "--prompt", "the lazy[MASK]")
    assert len(record.answers) == 5
    record, printed = run_record(save("bert-tokens"), "--prompt", "the lazy dog")
    assert [answer.text for answer in record.answers if answer.text not in LABELS.values()] == []
    assert len(record.answers) == record.seq_len
    assert "input" in printed


@pytest.mark.parties
def test_an_image_is_classified(save: Callable[..., Path], tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (200, 30, 90)).save(tmp_path / "photo.png")
    record, _ = run_record(save("vit"), "--image", tmp_path / "photo.png")
    assert {answer.text for answer in record.answers} == set(LABELS.values())
    assert record.agreement
    assert (record.agreement.max_abs or 1) < 0.01


@pytest.mark.parties
def test_a_padded_bundle_reads_texts_of_any_length(save: Callable[..., Path], tmp_path: Path, lines: Path) -> None:
    folder, bundle = save("bert-labels"), tmp_path / "bundle"
    options = ["--protocol", "lean", "--seq-len", "20", "--padded", "--batch", "2", "--out", str(bundle)]
    exported = CliRunner().invoke(main, ["export", "--model", str(folder), *options])
    assert exported.exit_code == 0, exported.output
    record, _ = run_record(folder, "--bundle", bundle, "--text", lines)
    assert (record.sequences, record.batch, len(record.answers)) == (2, 2, 3)
    for answer in record.answers:
        assert answer.private == pytest.approx(answer.plain, abs=0.01)


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
    assert "names no text; the bounds of its values are measured on random inputs" in exported.stderr
    assert json.loads((bundle / "graph.json").read_text(encoding="utf-8"))["origin"]["labels"] == list(LABELS.values())
    words = run(folder, "--bundle", bundle, "--prompt", TEXT[:40])
    assert words.exit_code == 2
    assert "the prompt has " in words.stderr
    assert "give 1 to 5." in words.stderr
    words = run(folder, "--bundle", bundle, "--prompt", "a")
    assert words.exit_code == 2
    assert "was exported for 5 tokens, the prompt has 2; export it with --padded." in words.stderr


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("gpt2", [], "names no held-out text; give --text FILE, --prompt TEXT or --image FILE"),
        ("gpt2", ["--prompt", "a", "--text", "b"], "--text, --prompt and --image are different inputs"),
        ("gpt2", ["--text", "nowhere.txt"], "there is no file nowhere.txt"),
        (
            "gpt2",
            ["--text", "README.md", "--seq-len", "24", "--sequences", "99999"],
            "too few for 99999 sequences of 24",
        ),
        ("gpt2", ["--text", "README.md"], "the longest line of README.md has "),
        ("gpt2", ["--prompt", TEXT], "give 1 to 24."),
        ("gpt2", ["--prompt", ""], "give 1 to 24."),
        ("gpt2", ["--prompt", TEXT[:20], "--hide-length", "2"], "give 1 to 2."),
        ("gpt2", ["--text", "README.md", "--seq-len", "8", "--hide-length", "9"], "give one of them"),
        ("gpt2", ["--prompt", "the dog", "--seq-len", "9"], "leave --seq-len out"),
        ("bert-encoder", ["--image", "README.md"], "has no preprocessor_config.json"),
        ("vit", ["--prompt", "a dog"], "has no tokenizer"),
        ("vit", ["--image", "README.md"], "README.md cannot be read as an image"),
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


@pytest.mark.parties
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "t5", "bart"])
def test_experts_and_decoders_answer_a_prompt(save: Callable[..., Path], name: str) -> None:
    record, _ = run_record(save(name), "--prompt", "The quick brown")
    assert record.agreement and record.agreement.top1 == 1.0
    assert len(record.answers) == 5 and record.perplexity is None
    assert all(answer.plain is not None and abs(answer.private - answer.plain) < 0.01 for answer in record.answers)


def test_a_decoder_reads_texts_of_one_length(save: Callable[..., Path], tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("The quick brown fox\nThe\n")
    result = run(save("t5"), "--text", lines, "--batch", "2")
    assert result.exit_code == 2 and "reads texts of one length" in result.stderr
    assert "predicts no next token" in run(save("bart"), "--prompt", "The", "--generate", "2").stderr
