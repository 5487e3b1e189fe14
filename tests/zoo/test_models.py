"""Models of cards: sizes, surgery, folding, checkpoints, and errors in cards and files."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from transformers import GPT2LMHeadModel

from pi_sim import specs
from pi_sim.cli import main
from pi_sim.errors import UsageError
from pi_sim.zoo import build
from pi_sim.zoo.scales import ScaledModel
from pi_sim.zoo.source import ModelSource
from tests.helpers.tiny_models import SMALL, hugging_face, tiny_model

CARDS, SIZES = specs.list_names("models"), specs.list_names("models/sizes")


# Cards


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("card", CARDS)
def test_every_card_builds_at_every_size_without_memory(card: str, size: str) -> None:
    model, wanted = ModelSource.parse(card, size).meta(), specs.load_size(size)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert model.num_parameters() == parameters(specs.load_model_card(card), wanted)
    design = specs.load_model_card(card).architecture
    own = design.attention != "softmax" or design.temperature
    assert model.config._attn_implementation.startswith("pi_sim" if own else "eager")


def parameters(card: specs.ModelCard, size: specs.Size) -> int:
    """Return the number of parameters by formula: tied table, positions unless rotary, blocks, final norm."""
    design, positions = card.architecture, size.context if card.architecture.family == "gpt2" else 0
    blocks = sum(block(design, size, layer in design.dropped_ffn) for layer in range(size.layers))
    shared = design.activation == "learnable_lrelu" and design.slopes == "global"
    return (size.vocabulary + positions) * size.width + blocks + norm(design.final_norm, size.width) + shared


def block(design: specs.Architecture, size: specs.Size, dropped: bool) -> int:
    """Return the parameters of one block: attention and FFN matrices, with biases in GPT-2 only."""
    width, biased = size.width, design.family == "gpt2"
    attention = 4 * width**2 + 4 * width * biased + size.heads * design.temperature
    slope = design.activation == "learnable_lrelu" and design.slopes == "layer"
    inner = 4 * width if biased else 8 * width // 3
    ffn = {"gpt2": 2, "llama": 3}[design.family] * width * inner + (inner + width) * biased + slope
    if design.ffn == "fused":
        ffn = width**2 + width
    scales = 2 * (design.ffn != "mlp")
    return attention + norm(design.norm, width) + (0 if dropped else ffn + scales + norm(design.norm, width))


def norm(name: str, width: int) -> int:
    """Return the parameters of one norm: gain, bias, and alpha and shift of DyT and Derf."""
    return {"none": 0, "layernorm": 2 * width, "rmsnorm": width, "derf": 2 * width + 2}.get(name, 2 * width + 1)


def test_a_width_that_its_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="a width of 16 does not divide into 3 heads"):
        specs.validate_table(specs.Size, {**SMALL.model_dump(), "heads": 3}, "a test")


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_without_surgery_the_logits_are_hugging_face_s(activation: str, ids: Tensor) -> None:
    ours, theirs = tiny_model(f"{activation}_ln"), hugging_face(activation)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('"none"', '"layernorm"'), "pi_sim is {} here"),
        (('"relu"', '"gelu"'), "activation_function is 'gelu' here and 'relu' there"),
    ],
)
def test_a_card_of_another_design_does_not_get_the_shipped_weights(
    change: tuple[str, str], complaint: str, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(specs.find_file("models", "relu_nonorm").read_text().replace(*change))
    with pytest.raises(UsageError, match=complaint):
        ModelSource.parse(str(mine), "tiny").load()


def test_a_size_of_other_dimensions_does_not_get_the_shipped_weights(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(specs.find_file("models/sizes", "tiny").read_text().replace("layers = 4", "layers = 5"))
    with pytest.raises(UsageError, match="num_hidden_layers is 5 here and 4 there"):
        ModelSource.parse("relu_nonorm", str(mine)).load()


# Scales


@pytest.mark.parametrize("card", CARDS)
def test_folding_keeps_the_logits(card: str, ids: Tensor) -> None:
    scaled = ScaledModel(tiny_model(card), 4.0, 3.0).eval()
    plain = scaled.fold()
    torch.testing.assert_close(plain(ids).logits, scaled(ids).logits, rtol=1e-5, atol=1e-5)
    assert plain.lm_head.weight is not plain.get_input_embeddings().weight
    assert scaled.model.lm_head.weight is scaled.model.get_input_embeddings().weight


def test_without_scales_the_wrapper_changes_nothing(ids: Tensor) -> None:
    model = tiny_model("relu_ln")
    scaled = ScaledModel(model, None, None)
    torch.testing.assert_close(scaled(ids).loss, model(ids, labels=ids).loss)
    assert not scaled.embedding_scale.requires_grad


# Checkpoints


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    build.save_checkpoint(ScaledModel(tiny_model("relu_nonorm"), 4.0, 3.0).fold(), tmp_path)
    return tmp_path


def test_a_saved_model_loads_with_its_surgery(saved: Path, ids: Tensor) -> None:
    loaded, known = build.load_checkpoint(saved), ScaledModel(tiny_model("relu_nonorm"), 4.0, 3.0).fold()
    assert torch.equal(loaded(ids).logits, known(ids).logits)
    assert loaded.config.pi_sim == {"norm": "none", "final_norm": "none"}
    assert ModelSource.parse(str(saved), "tiny").meta().state_dict().keys() == loaded.state_dict().keys()


def test_a_foreign_checkpoint_loads(tmp_path: Path, ids: Tensor) -> None:
    model = hugging_face("gelu_new")
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(ModelSource.parse(str(tmp_path), "tiny").load()(ids).logits, model(ids).logits)


def test_our_checkpoints_without_surgery_load_in_transformers(tmp_path: Path, ids: Tensor) -> None:
    model = ScaledModel(tiny_model("gelu_ln"), 4.0, 3.0).fold()
    build.save_checkpoint(model, tmp_path)
    torch.testing.assert_close(GPT2LMHeadModel.from_pretrained(tmp_path).eval()(ids).logits, model(ids).logits)


def spoil(folder: Path, how: str) -> None:
    """Damage a checkpoint the way downloads and hand edits do."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    settings = json.loads(config.read_text())
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "no weights":
        weights.unlink()
    elif how == "no config":
        config.unlink()
    elif how == "not JSON":
        config.write_text("{")
    elif how == "other width":
        config.write_text(json.dumps({**settings, "n_embd": 32}))
    elif how == "other heads":
        config.write_text(json.dumps({**settings, "n_head": 3}))
    elif how == "other surgery":
        config.write_text(json.dumps({**settings, "pi_sim": {}}))
    elif how == "no surgery":
        config.write_text(json.dumps({**settings, "pi_sim": None}))


DAMAGES = (
    "truncated",
    "no weights",
    "no config",
    "not JSON",
    "other width",
    "other heads",
    "other surgery",
    "no surgery",
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_one_sentence(saved: Path, how: str) -> None:
    spoil(saved, how)
    with pytest.raises(UsageError) as refusal:
        ModelSource.parse(str(saved), "tiny").load()
    assert "\n" not in str(refusal.value)


def test_a_foreign_checkpoint_with_gaps_is_refused(tmp_path: Path) -> None:
    model = hugging_face("gelu_new")
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if "h.1." not in k})
    with pytest.raises(UsageError, match="tensors are missing"):
        build.load_checkpoint(tmp_path)


def test_missing_weights_say_how_to_make_them() -> None:
    with pytest.raises(UsageError, match="pi-sim train --model relu_nonorm --size gpt2"):
        ModelSource.parse("relu_nonorm", "gpt2").load()


SLOPED = (specs.data_root() / "models" / "relu_ln.toml").read_text().partition("\n# ")[0] + "\n"


@pytest.mark.parametrize(
    ("card", "complaint"),
    [
        (None, "unknown model 'swish_ln'"),
        ("norm = 3", "'name'"),
        ("[architecture", "not valid TOML"),
        ('name = "x"\ntitle = "x"\nsource = "x"\nsauce = "x"\n[architecture]', "'architecture.norm'"),
        (f"{SLOPED}slope = 0.1", "key 'architecture': slope = 0.1 does nothing unless activation is leaky_relu"),
    ],
)
def test_a_bad_card_is_one_sentence_and_status_2(card: str | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(card or "")
    result = CliRunner().invoke(main, ["train", "--model", str(path) if card else "swish_ln"])
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
