"""The Python interface: what the command line says, as data frames, and errors with its sentences."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import pi_sim
import pi_sim.api
from pi_sim.network import PRESETS
from pi_sim.specs import load_protocol
from tests.helpers.cli import invoke, python, refused

FUNCTIONS = {"compare", "estimate", "generate", "models", "networks", "protocols", "run", "sweep"}
CONFIG = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50, n_positions=32)


def test_the_package_shows_its_interface() -> None:
    assert set(dir(pi_sim)) == FUNCTIONS | {"PiSimError", "RunError", "UsageError", "__version__"}
    assert all(getattr(pi_sim, name).__doc__ for name in FUNCTIONS)
    assert (Path(pi_sim.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="has no attribute 'magic'"):
        pi_sim.magic  # noqa: B018


def test_importing_the_package_takes_no_time() -> None:
    code = "import sys, pi_sim; assert not {'torch', 'pandas', 'pydantic', 'click'} & set(sys.modules)"
    done = python(f"{code}; pi_sim.estimate; assert not {{'torch', 'transformers', 'pandas'}} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_a_name_a_folder_and_a_config_are_priced_alike(tmp_path: Path) -> None:
    CONFIG.save_pretrained(tmp_path)
    priced = pi_sim.estimate(CONFIG, seq_len=8)
    assert (priced.model, priced.size, priced.seq_len) == ("GPT2Config", "own", 8)
    assert pi_sim.estimate(tmp_path, seq_len=8).rows == pi_sim.estimate(str(tmp_path), seq_len=8).rows == priced.rows
    assert pi_sim.estimate(CONFIG).seq_len == 32


def test_a_transformers_model_needs_no_inputs() -> None:
    with torch.device("meta"):
        model = GPT2LMHeadModel(CONFIG).eval()
    assert pi_sim.estimate(model, seq_len=8).total == pi_sim.estimate(CONFIG, seq_len=8).total
    assert pi_sim.estimate(model, past=8).total == pi_sim.estimate(CONFIG, past=8).total
    inner = pi_sim.estimate(model, torch.zeros(1, 8, dtype=torch.long), inner=True)
    assert inner.total == pi_sim.estimate(CONFIG, seq_len=8, inner=True).total


def test_objects_stand_in_place_of_names() -> None:
    by_name = pi_sim.estimate(CONFIG, protocol="sigma", networks=["lan"], seq_len=8)
    assert pi_sim.estimate(CONFIG, protocol=load_protocol("sigma"), networks=PRESETS["lan"], seq_len=8) == by_name


def test_a_frame_has_the_columns_of_the_csv() -> None:
    priced = pi_sim.estimate("relu_nonorm", seq_len=8, networks="lan")
    header, *lines = invoke("estimate", "--seq-len", "8", "--network", "lan", "--format", "csv").stdout.splitlines()
    frame = priced.frame("op")
    assert set(frame) <= set(header.split(","))
    assert len(frame) == len(lines)
    rows = priced.frame()
    assert list(rows)[:5] == ["module", "op", "shapes", "count", "provenance"]
    for name in ("rounds", "bytes", "offline_bytes", "seconds_lan"):
        assert rows[name].sum() == pytest.approx(frame[name].sum())
    assert priced.frame("total")["rounds"].item() == priced.total.rounds


def test_an_estimate_shows_itself() -> None:
    priced = pi_sim.estimate("relu_nonorm", seq_len=8, networks="lan")
    assert repr(priced).startswith("<Estimate: relu_nonorm (tiny), protocol crypten, 8 tokens: ")
    assert len(repr(priced)) < 120
    assert priced.title in priced._repr_html_()
    assert "softmax" in priced._repr_html_()


def test_a_comparison_has_a_row_for_each_estimate() -> None:
    compared = pi_sim.compare("gelu_ln", "relu_nonorm", seq_len=8)
    assert list(compared.frame()["model"]) == ["gelu_ln", "relu_nonorm"]
    csv = invoke("compare", "gelu_ln", "relu_nonorm", "--seq-len", "8", "--format", "csv").stdout.splitlines()
    assert list(compared.frame("op")) == csv[0].split(",")
    assert len(compared.frame("op")) == len(csv) - 1
    assert repr(compared) == "<Comparison: gelu_ln (tiny), protocol crypten | relu_nonorm (tiny), protocol crypten>"
    assert "relu_nonorm" in compared._repr_html_()


def test_an_estimate_of_a_module_is_compared() -> None:
    module = pi_sim.estimate(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), torch.zeros(1, 8, 8))
    compared = pi_sim.compare(module, "relu_nonorm", seq_len=8, networks=["lan"])
    assert list(compared.frame()["seconds_lan"]) == [
        estimate.seconds(estimate.overall)["lan"] for estimate in compared.estimates
    ]


@pytest.mark.parametrize(
    ("names", "command", "shown"),
    [
        (pi_sim.networks, "networks", "9 networks: lan, wan, slow-wan, "),
        (pi_sim.protocols, "protocols", "20 protocols: aby3, aero, "),
        (pi_sim.models, "models", "24 designs and 26 public models: aero_dropped, "),
    ],
)
def test_what_exists_is_listed_as_names_with_a_frame(
    names: Callable[[], pi_sim.api.Listing], command: str, shown: str
) -> None:
    listing, printed = names(), invoke(command, "--format", "json").stdout
    assert repr(listing).startswith(f"<Listing: {shown}")
    assert len(repr(listing)) < 160
    assert list(listing) == list(listing.frame()["name"]) == listing.names
    assert all(f'"{name}"' in printed for name in listing)
    assert listing[0] in listing._repr_html_()


def test_models_have_the_quality_of_their_shipped_weights() -> None:
    trained = pi_sim.models().frame().set_index("name")["perplexity"].dropna()
    assert set(trained.index) == {"gelu_ln", "gelu_nonorm", "relu_ln", "relu_nonorm"}
    assert trained.between(20, 40).all()


@pytest.fixture(scope="module")
def swept() -> pi_sim.api.SweepResult:
    return pi_sim.sweep(["gelu_ln", "relu_nonorm", "bert-tiny"], seq_lens=8, protocols=["crypten", "sigma"])


def test_a_sweep_has_the_columns_of_the_csv(swept: pi_sim.api.SweepResult, tmp_path: Path) -> None:
    options = [*("--model", "gelu_ln"), *("--model", "relu_nonorm"), *("--model", "bert-tiny"), *("--seq-len", "8")]
    protocols = ["--protocol", "crypten", "--protocol", "sigma"]
    header, *lines = invoke("sweep", *options, *protocols).stdout.splitlines()
    frame = swept.frame()
    assert header.split(",") == list(frame)
    assert len(frame) == len(lines) == 12
    assert repr(swept) == "<SweepResult: 12 estimates of 3 models, 2 protocols, 2 networks; 2 without a price>"
    assert frame.loc[frame["model"] == "bert-tiny", "perplexity"].isna().all()
    again = pi_sim.sweep("gelu_ln", seq_lens=[8], networks="lan", out=tmp_path / "sweep.csv")
    assert (tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines()[1] in lines
    assert again.rows == swept.rows[:1]


def test_the_best_design_is_the_fastest_within_the_budget(swept: pi_sim.api.SweepResult) -> None:
    within = swept.frame().query("perplexity <= 26 and network == 'wan'")
    best = swept.best(max_perplexity=26, network="wan")
    assert (best.model, best.protocol, best.seconds) == ("gelu_ln", "sigma", within["network_seconds"].min())
    slower = swept.best(max_perplexity=40, network="wan")
    assert best.perplexity and slower.perplexity and best.perplexity <= 26 < slower.perplexity
    assert swept.best(network="wan", model="bert-tiny").title.endswith(" s")  # its perplexity is not known
    assert repr(best).startswith("<DesignChoice: gelu_ln (tiny), protocol sigma, 8 tokens: wan ")
    assert best.frame()["network_seconds"].item() == best.seconds
    assert best.title in best._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "several values of network: lan, wan; give best one"),
        ({"network": "moon"}, "no network 'moon'; choose one of lan, wan"),
        ({"network": "lan", "length": 8}, "no column length; choose one of model, size, seq_len"),
        ({"network": "lan", "max_perplexity": 5}, "at most 5; the lowest is .*, of gelu_ln"),
        ({"network": "lan", "max_perplexity": "5"}, "max_perplexity is '5'; give a number"),
        ({"network": "lan", "model": "bert-tiny", "max_perplexity": 5}, "no design has a known perplexity"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(
    swept: pi_sim.api.SweepResult, arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(pi_sim.UsageError, match=sentence):
        swept.best(**arguments)


def test_a_sweep_without_prices_says_why() -> None:
    swept = pi_sim.sweep("relu_nonorm", seq_lens=[8], protocols="delphi", networks="lan")
    assert swept.title.endswith("1 without a price")
    with pytest.raises(pi_sim.UsageError, match=r"no row has a price: .*protocol delphi has no price for"):
        swept.best()


@pytest.mark.parties
def test_a_run_has_what_was_predicted_beside_what_was_measured() -> None:
    result = pi_sim.run("relu_nonorm", seq_len=8, protocol="lean")
    counts = result.frame().set_index("quantity")
    priced = pi_sim.estimate("relu_nonorm", protocol="lean", seq_len=8).total
    assert list(counts.loc["rounds"]) == [priced.rounds, priced.rounds]
    assert list(counts.loc["bytes sent"]) == [priced.bytes, priced.bytes]
    assert counts.loc["seconds", "measured"] == result.record.measured.seconds
    assert result.outputs.shape == (1, 8, 2048)
    assert result.perplexity is not None
    assert result.perplexity.private == pytest.approx(result.perplexity.plain, rel=0.01)
    assert repr(result).startswith("<PrivateRun: relu_nonorm (tiny), protocol lean, 1 x 8 tokens: ")
    assert result.title in result._repr_html_()


@pytest.mark.parties
def test_a_text_is_answered_and_a_list_has_an_output_each() -> None:
    result = pi_sim.run("relu_nonorm", "def forward(self, x):", protocol="lean")
    assert abs(result.answers[0].private - result.answers[0].plain) < 0.01
    assert repr(result.answers[0].text) in repr(result)
    assert "answers" in result._repr_html_()
    texts = ["def forward(self, x):", "import numpy", "import numpy"]
    several = pi_sim.run("relu_nonorm", texts, protocol="lean", batch=3)
    assert several.outputs.shape[0] == 3
    assert several.outputs[0, 8].argmax() == result.outputs[0, 8].argmax()


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (lambda: pi_sim.estimate("gtp2"), ["estimate", "--model", "gtp2"]),
        (lambda: pi_sim.estimate("gpt2", protocol="sigm"), ["estimate", "--model", "gpt2", "--protocol", "sigm"]),
        (lambda: pi_sim.estimate("gpt2", networks="lam"), ["estimate", "--model", "gpt2", "--network", "lam"]),
        (lambda: pi_sim.estimate(size="huge"), ["estimate", "--size", "huge"]),
        (lambda: pi_sim.estimate(machine="none.json"), ["estimate", "--machine", "none.json"]),
        (lambda: pi_sim.estimate(seq_len=4, past=4), ["estimate", "--seq-len", "4", "--past", "4"]),
        (lambda: pi_sim.compare("gpt2"), ["compare", "gpt2"]),
        (lambda: pi_sim.run(protocol="sigma"), ["run", "two-party", "--protocol", "sigma"]),
        (lambda: pi_sim.run(text=Path("none.txt")), ["run", "two-party", "--text", "none.txt"]),
        (lambda: pi_sim.run(seq_len=1), ["run", "two-party", "--seq-len", "1"]),
        (lambda: pi_sim.run(text="a", image="b"), ["run", "two-party", "--prompt", "a", "--image", "b"]),
        (lambda: pi_sim.sweep(["gelu_ln", "gtp2"]), ["sweep", "--model", "gelu_ln", "--model", "gtp2"]),
    ],
)
def test_an_error_is_that_of_the_command_line(call: Callable[[], object], options: list[str]) -> None:
    with pytest.raises(pi_sim.UsageError) as error:
        call()
    assert refused(invoke(*options)) == f"pi-sim: {error.value}\n"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: pi_sim.estimate(seq_len=0), "seq_len is 0; give a whole number"),
        (lambda: pi_sim.estimate(batch=1.5), "batch is 1.5; give a whole number"),
        (lambda: pi_sim.estimate(5), "there is no model 5"),
        (lambda: pi_sim.estimate(protocol=5), "unknown protocol '5'"),
        (lambda: pi_sim.estimate(networks=[5]), "unknown network '5'"),
        (lambda: pi_sim.estimate(nn.ReLU()), "the inputs of ReLU are not known; give example_inputs"),
        (lambda: pi_sim.estimate(nn.ReLU(), torch.zeros(1), batch=2), "leave seq_len, batch and past out"),
        (lambda: pi_sim.estimate("gpt2", torch.zeros(1)), "example_inputs are those of a torch module"),
        (lambda: pi_sim.compare(nn.ReLU(), "gpt2"), "ReLU is a module, which only pi_sim.estimate takes"),
        (lambda: pi_sim.run(text=[]), r"text is \[\]; give a string, a list"),
        (lambda: pi_sim.run(text=5), "text is 5; give a string, a list"),
        (lambda: pi_sim.run(text=[" "]), "the list of texts has no line of text"),
        (lambda: pi_sim.run(nn.ReLU()), "ReLU is a module, which only pi_sim.estimate takes"),
        (lambda: pi_sim.run(CONFIG), "GPT2Config is a config without weights"),
        (lambda: pi_sim.run(device="tpu"), "there is no device 'tpu'; use cpu or cuda"),
        (lambda: pi_sim.run(timeout=-1), "timeout is -1; give seconds, more than 0"),
        (lambda: pi_sim.sweep(seq_lens=[8, 0]), "seq_lens is 0; give a whole number"),
        (lambda: pi_sim.sweep(records="nowhere"), "there is no folder nowhere of records"),
        (lambda: pi_sim.sweep([]), "one of these lists is empty"),
        (lambda: pi_sim.compare(), "there is nothing to compare"),
        (lambda: pi_sim.estimate(seq_len=8).frame("word"), "there are no rows by 'word'; choose op, layer, module"),
    ],
)
def test_an_argument_that_is_none_of_its_kind_is_named(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(pi_sim.UsageError, match=sentence):
        call()


@pytest.mark.parties
def test_a_prompt_is_continued(capsys: pytest.CaptureFixture[str]) -> None:
    pieces: list[str] = []
    result = pi_sim.generate("relu_nonorm", "The history of", tokens=3, protocol="lean", on_text=pieces.append)
    assert result.record.generation and result.text == "".join(pieces) == result.record.generation.plain_text
    assert result.outputs.shape == (3, 2048)
    assert repr(result.text) in repr(result)
    priced = pi_sim.estimate("relu_nonorm", protocol="lean", prompt_len=6, generate=3)
    assert priced.total.bytes == result.record.measured.bytes


def test_a_generation_says_what_it_cannot_do() -> None:
    with pytest.raises(pi_sim.UsageError, match="top_p"):
        pi_sim.generate("relu_nonorm", "x", top_p=2.0)
    with pytest.raises(pi_sim.UsageError, match="tokens"):
        pi_sim.generate("relu_nonorm", "x", tokens=0)
