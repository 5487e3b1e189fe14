"""Mixtures of experts: the selection is that of torch's topk, and all experts together compute what it chooses."""

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from pi_sim.errors import UsageError
from pi_sim.graph import reference
from pi_sim.graph.capture import capture_model
from pi_sim.graph.experts import select_largest

LENGTH = 6
COMMON: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "num_experts_per_tok": 2, "attn_implementation": "eager",
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen2": ("Qwen2Moe", {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}),
    "qwen3": ("Qwen3Moe", {"num_experts": 4, "moe_intermediate_size": 8, "head_dim": 8}),
    "olmoe": ("Olmoe", {"num_experts": 4}),
}


def build_mixture(name: str, **settings: Any) -> PreTrainedModel:
    """Return a small mixture of experts whose weights are large enough for its experts to differ."""
    family, own = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**COMMON, **own, **settings)
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@given(
    scores=st.lists(st.integers(-300, 300), min_size=2, max_size=9, unique=True),
    k=st.integers(1, 3),
    rows=st.integers(1, 3),
)
def test_the_selection_takes_the_largest_scores(scores: list[int], k: int, rows: int) -> None:
    x = torch.tensor(scores).float().div(10).expand(rows, -1)
    k = min(k, len(scores))
    values, indices = x.topk(k)
    selection = select_largest(x, k)
    torch.testing.assert_close((selection * x.unsqueeze(-2)).sum(-1), values)
    assert torch.equal(selection.argmax(-1), indices)
    assert torch.equal(selection.sum(-1), torch.ones(rows, k))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_all_experts_together_compute_what_the_chosen_ones_do(name: str) -> None:
    model, tokens = build_mixture(name), torch.randint(50, (1, LENGTH))
    graph = capture_model(model, LENGTH)
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits
        logits = reference.reference_logits(graph, dict(model.state_dict()), tokens)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    linear = [node for node in graph.nodes if node.op.name == "linear" and "experts" in node.module]
    assert len(linear) == 2 * 4 * 2  # two maps of each expert, in two layers


def test_another_kind_of_mixture_is_refused_in_one_sentence() -> None:
    config = transformers.GptOssConfig(**COMMON, num_local_experts=4, head_dim=8)
    with pytest.raises(UsageError, match=r"torch\.export cannot trace this model: model\.layers\.0"):
        capture_model(transformers.GptOssForCausalLM(config).eval(), LENGTH)
