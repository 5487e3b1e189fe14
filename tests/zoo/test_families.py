"""Surgery in families that pi-sim does not know: correct for known classes, refused by name for others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from pi_sim.errors import UsageError
from pi_sim.zoo import build, modules, surgery
from pi_sim.zoo.layers import Rectified

SHAPE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
GATED = {**SHAPE, "intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("mistral", "qwen2", "qwen3", "gemma", "gemma2", "cohere", "olmo", "phi3"), GATED),
    "bloom": SHAPE,
    "gptj": {**SHAPE, "rotary_dim": 4},
    "gpt_oss": {**GATED, "num_local_experts": 2, "num_experts_per_tok": 1},
}
NORM_FREE = {"norm": "none", "final_norm": "none"}


def foreign(family: str) -> PreTrainedModel:
    """Build an untrained model of the family, with every weight changed from its initial value."""
    torch.manual_seed(0)
    pad = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(family, **CONFIGS[family], **pad)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


KNOWN: list[surgery.Plan] = [
    {"norm": "rmsnorm", "final_norm": "rmsnorm"},
    {**NORM_FREE, "ffn": "scaled"},
    {"norm": "dyt", "relu_after_norm": True},
    {"activation": "leaky_relu"},
    {"attention": "2quad"},
    {"temperature": True},
    {"dropped_ffn": [1]},
]


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("plan", KNOWN, ids=lambda plan: next(reversed(plan)))
def test_families_like_llama_are_understood(family: str, plan: surgery.Plan, ids: Tensor) -> None:
    """Switches with neutral start values keep the logits, others change them, and the config describes the result."""
    model = foreign(family)
    before = model(ids).logits
    after = surgery.apply_surgery(model, plan)(ids).logits
    assert torch.allclose(before, after, atol=1e-5) == (plan in (KNOWN[0], KNOWN[5]))
    again = build._build_from_config(type(model.config).from_dict(model.config.to_dict())).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(ids).logits, after)


def test_norms_inside_attention_are_not_the_blocks() -> None:
    model = foreign("qwen3")
    assert [path.rpartition(".")[2] for path in modules.block_norm_paths(model)] == [
        "input_layernorm",
        "post_attention_layernorm",
    ] * 2
    surgery.apply_surgery(model, {"relu_after_norm": True, "dropped_ffn": [1]})
    attention = model.model.layers[1].self_attn
    assert not isinstance(attention.q_norm, Rectified | nn.Identity)


def test_norms_of_the_embeddings_are_not_final() -> None:
    model = surgery.apply_surgery(foreign("bloom"), {"final_norm": "none"})
    assert modules.is_norm(model.transformer.word_embeddings_layernorm)
    assert isinstance(model.transformer.ln_f, nn.Identity)


@pytest.mark.parametrize("family", ["gemma", "cohere", "olmo", "phi3"])
def test_norms_of_any_class_can_be_taken_away(family: str) -> None:
    model = surgery.apply_surgery(foreign(family), NORM_FREE)
    assert not modules.block_norm_paths(model) + modules.final_norm_paths(model)


@pytest.mark.parametrize(
    ("family", "plan", "complaint"),
    [
        ("gemma", {"norm": "dyt"}, "GemmaRMSNorm has no gain that dyt could take over"),
        ("gemma", {"final_norm": "layernorm"}, "GemmaRMSNorm has no gain that layernorm could take over"),
        ("olmo", {"norm": "rmsnorm"}, "OlmoLayerNorm has no gain"),
        ("gemma2", {"relu_after_norm": True}, "is a Gemma2RMSNorm, which surgery does not know"),
        ("gemma2", {"dropped_ffn": [0]}, "is a Gemma2MLP, which surgery does not know"),
        ("phi3", {**NORM_FREE, "activation": "identity", "ffn": "fused"}, "is a Phi3MLP, which surgery does not know"),
        ("bloom", {**NORM_FREE, "ffn": "scaled"}, "is a BloomMLP, which surgery does not know"),
        ("gptj", {"attention": "2quad"}, "GPTJForCausalLM has a custom attention"),
        ("bloom", {"attention": "2relu"}, "BloomForCausalLM has a custom attention"),
        ("bloom", {"temperature": True}, "BloomForCausalLM has a custom attention"),
        ("gemma2", {"attention": "softmax"}, "Gemma2ForCausalLM has a custom attention"),
    ],
)
def test_what_takes_knowledge_of_a_family_is_refused(family: str, plan: surgery.Plan, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        surgery.apply_surgery(foreign(family), plan)


def test_scores_that_are_more_than_scores_are_refused(ids: Tensor) -> None:
    model = surgery.apply_surgery(foreign("gpt_oss"), {"attention": "2quad"})
    with pytest.raises(UsageError, match="GptOssAttention has s_aux in its scores"):
        model(ids)
