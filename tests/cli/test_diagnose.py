"""`pi-sim diagnose`: tables against golden texts, figures, records, and one sentence for each error."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from pi_sim import records
from pi_sim.records import DiagnosisRecord, JsonObject
from pi_sim.report import diagnosis, figures
from pi_sim.report.styles import png, svg
from tests.helpers.cli import invoke, refused
from tests.helpers.golden import Golden

INSIDE: JsonObject = {"kernel": "limit", "domain": [-188, 290], "in_domain": True}
OUTSIDE: JsonObject = {"kernel": "taylor", "domain": [0, 0.7], "in_domain": False}


def diagnose(*arguments: str | Path) -> Result:
    return invoke("diagnose", *arguments)


def row(
    op: str, quantity: str, module: str, layer: int | None, low: float | None, high: float, **more: Any
) -> JsonObject:
    largest = None if low is None else max(abs(low), high)
    named = {"op": op, "quantity": quantity, "module": module, "layer": layer}
    return {**named, "min": low, "max": high, "largest": largest, "fits": largest is not None, **more}


def record(**changes: Any) -> JsonObject:
    """Return a diagnosis of a model with a broken second layer and every learned scalar."""
    return {
        **{"model": "derf_lrelu", "size": "tiny", "protocol": "crypten", "text": "held-out", "sequences": 2},
        **{"seq_len": 128, "overload": 0.25, "collapse": 0.25},
        "entropy": [[3.8, 0.1], [2.0, None]],
        "entropy_share": [[0.98, 0.03], [0.5, None]],
        "by_layer": {"overload": [0.5, 0.0], "collapse": [0.5, 0.0]},
        "non_finite": {"nan": [0, 1280], "inf": [0, 3]},
        "slopes": [0.013, None],
        "alphas": [
            {"module": "transformer.h.0.ln_1", "alpha": 0.51, "inverse_std": 0.62},
            {"module": "transformer.h.0.ln_2", "alpha": 0.4, "inverse_std": 0.3},
            {"module": "transformer.ln_f", "alpha": 0.2, "inverse_std": None},
        ],
        "sparsity": {"qkv": [0.0, 0.0], "up": [0.5, None], "down": [0.95, None]},
        "flops": {"per_token": 1_572_864, "saved": 400_000.0, "share": 400_000 / 1_572_864},
        "histograms": [
            {"module": "transformer.h.0.mlp.act", "layer": 0, "reach": 2.0, "counts": [1, 3, 2, 1]}
            | {"below": 1, "above": 0, "negative": 0.625}
        ],
        "ranges": [
            row("softmax", "row maximum", "transformer.h.0.attn", 0, -3.0, 8.73, **INSIDE),
            row("softmax", "row maximum", "transformer.h.1.attn", 1, -9.5, 4.0, **INSIDE),
            row("erf", "|input|", "transformer.ln_f", None, 0.0, 3.25, **OUTSIDE),
            row("add", "residual stream", "transformer.h.1", 1, None, 12345.6),
        ],
        "truncations": [
            {"op": "multiply", "module": "transformer.h.1.mlp", "layer": 1, "expected_failures": 0.3},
            {"op": "linear", "module": "lm_head", "layer": None, "expected_failures": 0.1},
        ],
        "missing": [],
        **changes,
    }  # fmt: skip


def typed(**changes: Any) -> DiagnosisRecord:
    return DiagnosisRecord.model_validate(record(**changes))


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("style", ["table", "markdown", "csv"])
def test_golden(style: Any, golden: Golden) -> None:
    golden(f"diagnosis-{style}", diagnosis.render(typed(), style))


def test_the_tables_fit_80_columns() -> None:
    assert max(map(len, diagnosis.render(typed(), "table").splitlines())) <= 80


def test_absent_statistics_have_no_column_and_missing_parts_are_named() -> None:
    plain = {"ranges": [], "missing": ["Ranges are missing, because of this."], "slopes": None, "alphas": None}
    text = diagnosis.render(typed(**plain), "table")
    assert "slope" not in text and "alpha" not in text and "operation" not in text
    assert "- Ranges are missing, because of this." in text


def test_negligible_truncation_failures_are_not_mentioned() -> None:
    few = [{"op": "multiply", "module": "transformer.h.1.mlp", "layer": 1, "expected_failures": 0.009}]
    assert "truncation" in diagnosis.render(typed(), "table")
    assert "truncation" not in diagnosis.render(typed(truncations=few), "table")


@pytest.mark.slow
def test_every_figure_is_drawn_the_same_each_time() -> None:
    figures_by_name = dict(diagnosis.draw(typed()))
    assert set(figures_by_name) == {"entropy", "sparsity", "pre-activations", "ranges", "alphas", "slopes"}
    for draw in figures_by_name.values():
        assert ElementTree.fromstring(svg(draw)).tag.endswith("svg")
        assert svg(draw) == svg(draw)
        assert png(draw).startswith(b"\x89PNG")


def test_every_figure_has_a_caption() -> None:
    captions = {name: " ".join(draw().get_supxlabel().split()) for name, draw in diagnosis.draw(typed())}
    assert "Under MPC they save nothing" in captions["sparsity"]
    assert all(len(caption) > 40 and caption.endswith(".") for caption in captions.values())


def test_figures_of_a_model_that_learned_nothing_special() -> None:
    bare = typed(histograms=[], ranges=[], alphas=[], slopes=[])
    assert [name for name, _ in diagnosis.draw(bare)] == ["entropy", "sparsity"]


def test_heat_maps_of_many_models_share_their_colours() -> None:
    models = [(f"model {number}", [[0.1 * number, None], [0.5, 1.0], [0.0, 0.2]]) for number in range(6)]
    figure = figures.heat_maps(models)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 6
    assert {image.get_clim() for image in images} == {(0, 1)}
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes][:6] == [
        title for title, _ in models
    ]


@pytest.mark.slow
def test_a_shipped_model(tmp_path: Path) -> None:
    out, path = tmp_path / "figures", tmp_path / "found" / "diagnosis.json"
    result = diagnose("--model", "gelu_nonorm", "--sequences", "2", "--out", out, "--json", path)
    assert result.exit_code == 0, result.stderr
    assert "gelu_nonorm (tiny), protocol crypten, 2 held-out sequences of 128 tokens" in result.stdout
    assert "erf-taylor: 0 to 1 LEFT" in result.stdout
    assert "under MPC they save nothing" in result.stdout
    diagnosed = records.load(path, DiagnosisRecord)
    assert list(map(len, (diagnosed.entropy, diagnosed.entropy_share, diagnosed.histograms))) == [4, 4, 4]
    assert diagnosed.argv is not None
    assert diagnosed.argv[:4] == ("pi-sim", "diagnose", "--model", "gelu_nonorm")
    names = {"entropy", "sparsity", "pre-activations", "ranges"}
    assert {file.name for file in out.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}


def test_json_output_is_the_record() -> None:
    result = diagnose("--model", "relu_ln", "--sequences", "1", "--seq-len", "16", "--format", "json")
    table = json.loads(result.stdout)
    assert (table["seq_len"], table["sequences"], table["text"]) == (16, 1, "held-out")
    assert all(0.2 < share < 0.9 for share in table["sparsity"]["down"])


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A checkpoint that transformers saved, without tokenizer or record."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"


@pytest.mark.slow
def test_a_foreign_checkpoint_on_random_tokens(foreign: Path) -> None:
    once, again = (diagnose("--model", foreign, "--corpus", "random", "--format", "json") for _ in range(2))
    assert json.loads(once.stdout)["size"] == "own"
    assert json.loads(once.stdout)["sequences"] == 32
    assert once.stdout == again.stdout


@pytest.mark.slow
def test_a_foreign_checkpoint_on_a_text(foreign: Path, texts: Path, trained: Path) -> None:
    """The text is encoded by the checkpoint's tokenizer, whose ids must be in the model's vocabulary."""
    assert "has no tokenizer (tokenizer.json, " in refused(diagnose("--model", foreign, "--corpus", texts))
    (foreign / "tokenizer.json").write_bytes((trained / "tokenizer.json").read_bytes())
    assert "more than the model's 40 tokens" in refused(diagnose("--model", foreign, "--corpus", texts))
    result = diagnose("--model", trained, "--corpus", texts, "--sequences", "3", "--format", "json")
    assert json.loads(result.stdout)["text"] == str(texts)
    assert "too few for 100000 sequences of 16" in refused(
        diagnose("--model", trained, "--corpus", texts, "--sequences", "100000")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nobody"], "unknown model 'nobody'"),
        (["--protocol", "magic"], "unknown protocol 'magic'"),
        (["--seq-len", "1"], "choose --seq-len between 2 and 128"),
        (["--seq-len", "129"], "choose --seq-len between 2 and 128"),
        (["--size", "gpt2"], "no trained weights of relu_nonorm at size gpt2 are shipped"),
        (["--corpus", "nowhere.txt"], "there is no corpus nowhere.txt"),
        (["--sequences", "100000000"], "too few for 100000000 sequences"),
        (["--json", "README.md/record.json"], "cannot be written"),
        (["--out", "README.md/figures"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str) -> None:
    message = refused(diagnose(*arguments))
    assert sentence in message
    assert message.count("\n") == 1


def test_a_checkpoint_without_held_out_text_needs_a_corpus(foreign: Path) -> None:
    assert "give --corpus a path of text, or `random`" in refused(diagnose("--model", foreign))


@pytest.mark.slow
def test_llama_is_diagnosed(tmp_path: Path) -> None:
    wide = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=40, max_position_embeddings=8, bos_token_id=0, eos_token_id=0, **wide)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    table = json.loads(diagnose("--model", tmp_path, "--corpus", "random", "--format", "json").stdout)
    assert len(table["entropy"]) == 1
    assert bool(table["ranges"]) != bool(table["missing"])


def test_a_long_context_is_shortened_by_default(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pi_sim.inference.diagnosis.DEFAULT_MAX_LENGTH", 4)
    arguments = ["--model", foreign, "--corpus", "random", "--sequences", "1", "--format", "json"]
    assert json.loads(diagnose(*arguments).stdout)["seq_len"] == 4
    assert json.loads(diagnose(*arguments, "--seq-len", "8").stdout)["seq_len"] == 8
    assert "at most 1,024" in " ".join(diagnose("--help").stdout.split())


@pytest.mark.slow
def test_a_model_without_a_context_needs_a_length(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    arguments = ["--model", tmp_path, "--corpus", "random", "--format", "json"]
    for length in ([], ["--seq-len", "1"]):
        message = refused(diagnose(*arguments, *length))
        assert "BloomForCausalLM names no context in its config; choose a --seq-len of at least 2." in message
    assert json.loads(diagnose(*arguments, "--seq-len", "8").stdout)["seq_len"] == 8


@pytest.mark.slow
def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pi_sim.report.diagnosis.sparsity_by_layer", interrupted)
    out = tmp_path / "figures"
    result = diagnose("--sequences", "1", "--seq-len", "8", "--out", out, "--json", tmp_path / "record.json")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
