"""The zoo: cards become Hugging Face models, surgery and folding change nothing else, and bad input is refused."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from pi_sim import specs
from pi_sim.cli import main
from pi_sim.errors import UsageError
from pi_sim.zoo import build, surgery
from pi_sim.zoo.scales import Scaled

CARDS, SIZES = specs.names("models"), specs.names("models/sizes")
SMALL = specs.size("tiny").model_copy(update={"layers": 2, "width": 16, "heads": 2, "context": 8, "vocabulary": 40})


def small(card: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return build.build(specs.model_card(card), SMALL).eval()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, SMALL.vocabulary, (2, SMALL.context), generator=torch.Generator().manual_seed(0))


def hugging_face(activation: str) -> PreTrainedModel:
    """GPT-2 as transformers' own documentation would build it."""
    config = GPT2Config(vocab_size=40, n_positions=8, n_embd=16, n_layer=2, n_head=2, activation_function=activation)
    return GPT2LMHeadModel(config).eval()


# Cards


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("card", CARDS)
def test_every_card_builds_at_every_size_without_memory(card: str, size: str) -> None:
    model, wanted = build.meta_model(card, size), specs.size(size)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert model.num_parameters() == parameters(specs.model_card(card), wanted)
    assert model.config._attn_implementation == "eager"


def parameters(card: specs.ModelCard, size: specs.Size) -> int:
    """GPT-2's parameters, counted on paper: tables, four matrices with biases a block, and its norms."""
    width, norm = size.width, 2 * size.width
    block = (3 + 1 + 4 + 4) * width**2 + (3 + 1 + 4 + 1) * width
    norms = norm * (2 * size.layers * (card.architecture.norm != "none") + (card.architecture.final_norm != "none"))
    return (size.vocabulary + size.context) * width + size.layers * block + norms


def test_a_width_that_its_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="a width of 16 does not divide into 3 heads"):
        specs.check(specs.Size, {**SMALL.model_dump(), "heads": 3}, "a test")


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_without_surgery_the_logits_are_hugging_face_s(activation: str, ids: Tensor) -> None:
    ours, theirs = small(f"{activation}_ln"), hugging_face(activation)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits)


# Surgery


def test_surgery_leaves_other_weights_untouched(ids: Tensor) -> None:
    model = hugging_face("gelu")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    surgery.operate(model, {"norm": "none", "final_norm": "none", "activation": "relu"})
    after = model.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    assert all("ln_" in name for name in before.keys() - after.keys())
    assert isinstance(model.transformer.h[0].mlp.act, nn.ReLU)
    assert not any(surgery.is_norm(module) for module in model.modules())
    assert torch.isfinite(model(ids).logits).all()


def test_the_final_norm_is_a_choice_of_its_own() -> None:
    model = surgery.operate(hugging_face("gelu"), {"norm": "none"})
    assert [path for path, module in model.named_modules() if surgery.is_norm(module)] == ["transformer.ln_f"]


def test_surgery_knows_other_architectures() -> None:
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = surgery.operate(LlamaForCausalLM(config), {"norm": "none", "activation": "relu"})
    assert [path for path, module in model.named_modules() if surgery.is_norm(module)] == ["model.norm"]
    assert isinstance(model.model.layers[0].mlp.act_fn, nn.ReLU)


@pytest.mark.parametrize("plan", [{"norm": "batchnorm"}, {"nrom": "none"}, {"activation": "sine"}])
def test_unknown_surgery_is_refused(plan: surgery.Plan) -> None:
    with pytest.raises(UsageError, match="there is no surgery"):
        surgery.operate(hugging_face("gelu"), plan)


# Scales


@pytest.mark.parametrize("card", CARDS)
def test_folding_keeps_the_logits(card: str, ids: Tensor) -> None:
    scaled = Scaled(small(card), 4.0, 3.0).eval()
    plain = scaled.fold()
    torch.testing.assert_close(plain(ids).logits, scaled(ids).logits, rtol=1e-5, atol=1e-5)
    assert plain.lm_head.weight is not plain.transformer.wte.weight
    assert scaled.model.lm_head.weight is scaled.model.transformer.wte.weight


def test_without_scales_the_wrapper_changes_nothing(ids: Tensor) -> None:
    model = small("relu_ln")
    scaled = Scaled(model, None, None)
    torch.testing.assert_close(scaled(ids).loss, model(ids, labels=ids).loss)
    assert not scaled.embedding_scale.requires_grad


# Checkpoints


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    build.save(Scaled(small("relu_nonorm"), 4.0, 3.0).fold(), tmp_path)
    return tmp_path


def test_a_saved_model_loads_with_its_surgery(saved: Path, ids: Tensor) -> None:
    loaded, known = build.load(saved), Scaled(small("relu_nonorm"), 4.0, 3.0).fold()
    assert torch.equal(loaded(ids).logits, known(ids).logits)
    assert loaded.config.pi_sim == {"norm": "none", "final_norm": "none"}
    assert build.meta_model(str(saved), "tiny").state_dict().keys() == loaded.state_dict().keys()


def test_a_foreign_checkpoint_loads(tmp_path: Path, ids: Tensor) -> None:
    model = hugging_face("gelu_new")
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(build.load_model(str(tmp_path), "tiny")(ids).logits, model(ids).logits)


def test_our_checkpoints_without_surgery_load_in_transformers(tmp_path: Path, ids: Tensor) -> None:
    model = Scaled(small("gelu_ln"), 4.0, 3.0).fold()
    build.save(model, tmp_path)
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
        build.load_model(str(saved), "tiny")
    assert "\n" not in str(refusal.value)


def test_a_foreign_checkpoint_with_gaps_is_refused(tmp_path: Path) -> None:
    model = hugging_face("gelu_new")
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in model.state_dict().items() if "h.1." not in k})
    with pytest.raises(UsageError, match="tensors are missing"):
        build.load(tmp_path)


def test_missing_weights_say_how_to_make_them() -> None:
    with pytest.raises(UsageError, match="pi-sim train --model relu_nonorm --size gpt2"):
        build.load_model("relu_nonorm", "gpt2")


@pytest.mark.parametrize(
    ("card", "complaint"),
    [
        (None, "known: gelu_ln"),
        ("norm = 3", "'name'"),
        ("[architecture", "not valid TOML"),
        ('name = "x"\ntitle = "x"\nsource = "x"\nsauce = "x"\n[architecture]', "'architecture.norm'"),
    ],
)
def test_a_bad_card_is_one_sentence_and_status_2(card: str | None, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(card or "")
    result = CliRunner().invoke(main, ["train", "--model", str(path) if card else "swish_ln"])
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
