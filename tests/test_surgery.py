"""Surgery changes what it names in any Hugging Face model, and nothing else."""

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from untrained import hugging_face

from pi_sim.errors import UsageError
from pi_sim.zoo import surgery


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


def test_norms_of_the_embeddings_are_not_final() -> None:
    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2)
    model = surgery.operate(BloomForCausalLM(config), {"final_norm": "none"})
    left = [path for path, module in model.named_modules() if surgery.is_norm(module)]
    assert "transformer.word_embeddings_layernorm" in left
    assert "transformer.ln_f" not in left


def test_norm_classes_of_a_family_s_own_are_known() -> None:
    config = CohereConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = surgery.operate(CohereForCausalLM(config), {"norm": "none", "final_norm": "none"})
    assert "Norm" not in repr(model)


def test_surgery_that_finds_nothing_is_refused() -> None:
    model = surgery.operate(hugging_face("gelu"), {"norm": "none"})
    with pytest.raises(UsageError, match="GPT2LMHeadModel has no norm"):
        surgery.operate(model, {"norm": "none"})


@pytest.mark.parametrize("plan", [{"norm": "batchnorm"}, {"nrom": "none"}, {"activation": "sine"}])
def test_unknown_surgery_is_refused(plan: surgery.Plan) -> None:
    with pytest.raises(UsageError, match="there is no surgery"):
        surgery.operate(hugging_face("gelu"), plan)
