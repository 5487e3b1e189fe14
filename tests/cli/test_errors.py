"""Bad input is refused with one sentence that names the cause."""

import json
import socket
from pathlib import Path

import pytest

from tests.helpers.cli import WITHOUT_CRYPTEN, invoke, python, refused

STOCK = Path("protocols/crypten.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nobody"], "unknown model 'nobody'; `pi-sim models` lists them."),
        (["--model", "gpt-2"], "unknown model 'gpt-2'; closest: gpt2"),
        (["--size", "huge"], "unknown size 'huge'; `pi-sim models` lists them."),
        (["--protocol", "magic"], "unknown protocol 'magic'; `pi-sim protocols` lists them."),
        (["--protocol", "cryptn"], "unknown protocol 'cryptn'; closest: crypten, "),
        (["--protocol", "SIGMA"], "unknown protocol 'SIGMA'; closest: sigma"),
        (["--model", "bert_base"], "unknown model 'bert_base'; closest: bert-base"),
        (["--model", "models/relu_nonrom.toml"], "no file models/relu_nonrom.toml; closest: models/relu_nonorm.toml"),
        (["--protocol", "protocol/lean.toml"], "no file protocol/lean.toml; there is no folder protocol either."),
        (["--network", "WAN"], "unknown network 'WAN'; closest: wan"),
        (["--network", "moon"], "unknown network 'moon'"),
        (["--seq-len", "1000"], "the model's context is 128 tokens; choose --seq-len between 1 and 128"),
        (["--model", "missing.toml"], "there is no file missing.toml"),
        (["--model", "missing.json"], "there is no file missing.json"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert sentence in refused(invoke("estimate", *arguments))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "is not valid TOML"),
        ('name = "x"', "key 'title'"),
        ('name = "x"\ntitle = "x"\nthreat_model = "x"\nsource = "x"\nkernel = {}', "key 'kernel"),
        (STOCK.replace('name = "crypten"', 'name = "crypten"\nparties = 3'), "key 'parties'"),
    ],
)
def test_a_wrong_protocol_file_names_its_key(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    message = refused(invoke("estimate", "--protocol", str(path)))
    assert str(path) in message
    assert sentence in message


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("gelu = ", "gleu = ", "cannot choose 'gleu'; it may choose clamp, embedding, erf, gelu"),
        ("gelu = ", "view = ", "cannot choose 'view'"),
        ('relu = "kogge-stone"', 'relu = "magic"', "no kernel 'magic' for relu; known: kogge-stone"),
        ("exp_iterations", "magic_iterations", "no setting 'functions.magic_iterations'"),
        ('exp_iterations" = 8', 'exp_iterations" = "eight"', "is a value like 8, not 'eight'"),
        ('"log_reduction"', '"magic"', "cannot compute softmax"),
    ],
)
def test_a_protocol_that_means_nothing_is_refused(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(STOCK.replace(old, new))
    assert sentence in refused(invoke("estimate", "--seq-len", "4", "--protocol", str(path)))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("", "does not state the model's context"),
        ("[]", "does not state the model's context"),
        ('{"n_positions": null}', "does not state the model's context"),
        ('{"n_positions": 8, "model_type": "gpt2", "activation_function": "magic"}', "magic"),
        (
            '{"n_positions": 8, "model_type": "gpt2", "n_layer": 1, "activation_function": "mish"}',
            "cannot express aten.mish of transformer.h.0.mlp.act: it is not in the vocabulary; extend",
        ),
    ],
)
def test_a_model_that_cannot_be_priced_is_one_sentence(config: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    assert sentence in refused(invoke("estimate", "--model", str(tmp_path)))


@pytest.mark.parametrize("place", ["README.md/record.json", "/proc/record.json"])
def test_a_record_that_cannot_be_written_is_said_before_the_run(place: str) -> None:
    assert "cannot be written" in refused(invoke("run", "two-party", "--seq-len", "4", "--json", place))


@pytest.mark.parametrize("place", ["README.md/bundle", "/proc/bundle"])
def test_an_export_that_cannot_be_written_is_one_sentence(place: str) -> None:
    assert "cannot be written" in refused(invoke("export", "--seq-len", "4", "--out", place))


@pytest.mark.slow
def test_a_perplexity_needs_two_tokens() -> None:
    assert "at least 2 tokens" in refused(invoke("run", "two-party", "--seq-len", "1"))


@pytest.mark.slow
def test_a_protocol_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(STOCK.replace('"functions.exp_iterations" = 8', '"functions.exp_iterations" = 10'))
    prices = [
        json.loads(invoke("estimate", "--seq-len", "8", "--protocol", protocol, "--format", "json").stdout)["total"]
        for protocol in ("crypten", str(path))
    ]
    # Two more squarings in the softmax's exponential and two in its reciprocal's, in each of four layers.
    assert prices[1]["rounds"] - prices[0]["rounds"] == 4 * (2 + 2)


@pytest.mark.parties
def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        message = refused(invoke("run", "two-party", "--seq-len", "4", "--port", str(port)))
    assert f"port {port} cannot be used; choose another --port" in message


@pytest.mark.parametrize("damage", [b"", b"not safetensors"])
def test_a_damaged_checkpoint_is_one_sentence(damage: bytes, tmp_path: Path) -> None:
    for path in Path("models/weights/relu_nonorm-tiny").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(damage)
    assert f"the weights in {tmp_path} do not load" in refused(invoke("run", "two-party", "--model", str(tmp_path)))


def test_untrained_sizes_say_how_to_train() -> None:
    message = refused(invoke("run", "two-party", "--size", "gpt2"))
    assert "pi-sim train --model relu_nonorm --size gpt2" in message


@pytest.mark.slow
def test_missing_crypten_is_one_sentence(tmp_path: Path) -> None:
    done = python(WITHOUT_CRYPTEN.format("['estimate', '--seq-len', '5']"), XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 2
    *announced, sentence = done.stderr.splitlines()
    assert announced in ([], ["pricing for the first time ..."])
    assert "pip install --no-deps crypten==0.4.1" in sentence
