"""Public models by name: their parameters are the published ones, and what names a model is understood or refused."""

import json
from pathlib import Path

import pytest

from pi_sim import specs
from pi_sim.cost.census import capture_census
from pi_sim.errors import MissingDependencyError, UsageError
from pi_sim.zoo import source
from pi_sim.zoo.source import CardModel, Checkpoint, ConfigModel, ModelSource
from tests.helpers.hf_models import build_model

PARAMETERS = {
    "bert-base": 109_482_240 + 2 * 769,  # the encoder with its pooler, and two labels
    "bert-large": 335_141_888 + 2 * 1025,
    "bert-medium": 41_373_184 + 2 * 513,
    "bert-tiny": 4_385_920 + 2 * 129,
    "gpt-neo-1.3b": 1_315_575_808,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "llama-2-13b": 13_015_864_320,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "llama-7b": 6_738_415_616,
    "mistral-7b": 7_241_732_096,
    "opt-1.3b": 1_315_758_080,
    "opt-125m": 125_239_296,
    "opt-6.7b": 6_658_473_984,
    "pythia-1.4b": 1_414_647_808,
    "pythia-160m": 162_322_944,
    "pythia-70m": 70_426_624,
    "qwen2-0.5b": 494_032_768,
    "roberta-base": 124_055_040 + 768 * 769 + 2 * 769,  # the encoder, and a head of two layers
    "roberta-large": 354_310_144 + 1024 * 1025 + 2 * 1025,
    "tinyllama-1.1b": 1_100_048_384,
    "vit-base": 86_567_656,
    "vit-large": 304_326_632,
}
"""As published with the weights on the Hugging Face Hub."""


def test_every_config_is_checked() -> None:
    assert sorted(PARAMETERS) == source.list_configs()


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_public_model_has_its_published_parameters(name: str) -> None:
    model = ModelSource.parse(name, "tiny").meta()
    assert model.num_parameters() == PARAMETERS[name]
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_a_gguf_file_is_unpacked_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*model\.gguf"):
        ModelSource.parse(str(tmp_path / "model.gguf"), "tiny")
    (tmp_path / "model.gguf").write_bytes(b"no GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="needs the package gguf; run `pip install gguf`"):
        ModelSource.parse(str(tmp_path), "tiny")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(UsageError, match=r"model\.gguf cannot be read"):
        ModelSource.parse(str(tmp_path), "tiny")


@pytest.mark.parametrize(
    ("name", "tokens"), [("gpt2", 1024), ("bert-base", 512), ("roberta-base", 512), ("vit-base", 197)]
)
def test_a_public_model_tells_its_context(name: str, tokens: int) -> None:
    public = ModelSource.parse(name, "tiny")
    assert (public.context, public.label) == (tokens, "own")


def test_a_card_comes_before_a_folder_and_a_folder_before_a_public_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("relu_nonorm", "gpt2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"n_positions": 7}')
    names = ("relu_nonorm", "gpt2")
    assert [ModelSource.parse(name, "tiny").context for name in names] == [128, 1024]
    monkeypatch.chdir(tmp_path)
    assert [ModelSource.parse(name, "tiny").context for name in names] == [128, 7]


def test_a_file_and_a_folder_are_the_same_model(tmp_path: Path) -> None:
    build_model("llama").config.save_pretrained(tmp_path)
    census = capture_census(ModelSource.parse(str(tmp_path), "tiny"), 8)
    file = tmp_path / "other.json"
    file.write_text((tmp_path / "config.json").read_text())
    assert capture_census(ModelSource.parse(str(file), "tiny"), 8) == census


@pytest.mark.parametrize(
    ("architectures", "kind"),
    [
        (["BertForMaskedLM"], "BertForMaskedLM"),
        (["BertForQuestionAnswering"], "BertForQuestionAnswering"),
        (["SomebodysOwnBert"], "BertForMaskedLM"),
        (["json"], "BertForMaskedLM"),
        ([], "BertForMaskedLM"),
    ],
)
def test_a_config_says_what_its_model_is_for(architectures: list[str], kind: str, tmp_path: Path) -> None:
    options = json.loads((specs.data_root() / "models/configs/bert-tiny.json").read_text())
    (tmp_path / "mine.json").write_text(json.dumps({**options, "architectures": architectures}))
    assert type(ModelSource.parse(str(tmp_path / "mine.json"), "tiny").meta()).__name__ == kind


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ('{"model_type": "magic"}', "cannot be read"),
        ('{"model_type": "gpt2", "n_head": 5}', "no model can be built from this config"),
        ('{"model_type": "rag"}', "cannot be read|no model"),
    ],
)
def test_a_config_that_is_none_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        ModelSource.parse(str(path), "tiny").meta()


def test_a_public_model_has_no_weights_to_run() -> None:
    with pytest.raises(UsageError, match="gpt2 is a config without weights"):
        ModelSource.parse("gpt2", "tiny").load()


def test_names_are_cards_configs_or_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"n_positions": 7}')
    (tmp_path / "mine.json").write_text('{"n_positions": 9}')
    names = ("relu_nonorm", "gpt2", str(tmp_path), str(tmp_path / "mine.json"))
    sources = [ModelSource.parse(name, "tiny") for name in names]
    assert [type(source) for source in sources] == [CardModel, ConfigModel, Checkpoint, ConfigModel]
    assert tuple(source.name for source in sources) == names
    assert [source.label for source in sources] == ["tiny", "own", "own", "own"]
    assert [source.context for source in sources] == [128, 1024, 7, 9]
    assert sources[2].folder == tmp_path


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("gelu", "tiny", "unknown model 'gelu'"),
        ("relu_nonorm", "huge", "unknown size 'huge'"),
        ("nowhere.json", "tiny", "there is no file nowhere.json"),
        ("models", "tiny", "models has no config.json"),
    ],
)
def test_a_name_of_nothing_is_refused_at_once(name: str, size: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ModelSource.parse(name, size)


def test_weights_that_do_not_ship_are_named() -> None:
    assert ModelSource.parse("relu_nonorm", "tiny").folder.name == "relu_nonorm-tiny"
    with pytest.raises(UsageError, match="no trained weights of relu_nonorm at size gpt2 are shipped; train it"):
        _ = ModelSource.parse("relu_nonorm", "gpt2").folder
