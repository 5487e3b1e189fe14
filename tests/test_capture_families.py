"""Capture of untouched Hugging Face families: the graph computes their logits, from weights and from shapes alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from pi_sim.errors import UsageError
from pi_sim.graph import plain
from pi_sim.graph.capture import capture

COMMON: dict[str, Any] = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 16,
    "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0, "attn_implementation": "eager",
}  # fmt: skip
WIDE: dict[str, Any] = {"intermediate_size": 64, **COMMON}


def neox(parallel: bool) -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(use_parallel_residual=parallel, **WIDE))


def llama(groups: int) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=groups, **WIDE))


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**COMMON)),
    "neox-parallel": lambda: neox(True),
    "neox-sequential": lambda: neox(False),
    "opt": lambda: OPTForCausalLM(OPTConfig(ffn_dim=64, word_embed_proj_dim=32, **COMMON)),
    "llama": lambda: llama(4),
    "llama-grouped": lambda: llama(2),
}


def drawn(family: str) -> PreTrainedModel:
    """The model with all weights random, gains and biases too, so that none can go missing unnoticed."""
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_computes_hugging_faces_logits(family: str) -> None:
    model, tokens = drawn(family), torch.randint(50, (2, 12))
    read = plain.logits(capture(model, 12, batch=2), model.state_dict(), tokens)
    with torch.no_grad():
        torch.testing.assert_close(read, model(tokens).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_alone_give_the_same_graph(family: str) -> None:
    """On the meta device rotary frequencies have no data, and yet the public cosines are the same."""
    with torch.device("meta"):
        shapes = FAMILIES[family]().eval()
    ours, theirs = capture(shapes, 12), capture(drawn(family), 12)
    assert (ours.nodes, ours.weights) == (theirs.nodes, theirs.weights)
    assert ours.constants.keys() == theirs.constants.keys()
    assert all(torch.equal(ours.constants[name], value) for name, value in theirs.constants.items())


@pytest.mark.parametrize(("family", "op", "count"), [("gpt2", "gelu", 2), ("llama", "rmsnorm", 5)])
def test_what_transformers_writes_out_in_steps_is_one_operation(family: str, op: str, count: int) -> None:
    model = drawn(family)
    names = [node.op.name for node in capture(model, 8).nodes]
    assert names.count(op) == count
    assert not {"square", "tanh"} & set(names)
    assert all("forward" not in vars(module) for module in model.modules())


def test_a_norm_of_another_form_is_not_taken_for_llamas() -> None:
    """Gemma multiplies by 1 + weight."""
    from transformers import GemmaConfig, GemmaForCausalLM

    model = GemmaForCausalLM(GemmaConfig(num_key_value_heads=4, head_dim=8, **WIDE)).eval()
    with pytest.raises(UsageError, match=r"cannot express aten\.\w+ of model\.layers\.0\.input_layernorm"):
        capture(model, 8)


def test_a_buffer_without_data_that_cannot_be_made_again_is_named() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.ones(32))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.shift

    with torch.device("meta"):
        model = FAMILIES["gpt2"]().eval()
        model.transformer.ln_f = Shifted()
    with pytest.raises(UsageError, match=r"buffer transformer\.ln_f\.shift has no data on the meta device"):
        capture(model, 8)
