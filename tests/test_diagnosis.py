"""Diagnoses against formulas of their own: loops over Python's floats, for models of every family."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig, PreTrainedModel

from pi_sim.diagnosis.brief import observe
from pi_sim.diagnosis.entropy import collapsed, entropies, overloaded
from pi_sim.errors import UsageError
from pi_sim.zoo.layers import DyT, LearnableLeakyReLU
from pi_sim.zoo.scales import Scaled

LAYERS, HEADS, WIDTH, VOCABULARY = 2, 4, 32, 40
WIDE = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "vocab_size": VOCABULARY}
CONFIGS = {
    "gpt2": GPT2Config(n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, vocab_size=VOCABULARY, eos_token_id=0),
    "gpt_neox": GPTNeoXConfig(**WIDE, intermediate_size=64),
    "opt": OPTConfig(**WIDE, ffn_dim=64, word_embed_proj_dim=WIDTH),
    "llama": LlamaConfig(**WIDE, intermediate_size=64, num_key_value_heads=2),
}


def model(family: str = "gpt2") -> PreTrainedModel:
    """A small random model, with attention that is far from uniform."""
    torch.manual_seed(1)
    made = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation="eager")
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)
    return made.eval()


def entropy(row: list[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def by_head(probabilities: Tensor) -> list[tuple[float, float]]:
    """(entropy, share of maximum) of each head of (B, H, T, T), in float64 loops."""
    found = []
    for head in probabilities.double().transpose(0, 1).tolist():
        rows = [(entropy(row), count) for text in head for count, row in enumerate(text, start=1)]
        shares = [value / math.log(count) for value, count in rows if count > 1]
        found.append((sum(value for value, _ in rows) / len(rows), sum(shares) / len(shares)))
    return found


@pytest.mark.parametrize("family", CONFIGS)
def test_entropies_of_every_family(family: str, ids: Tensor) -> None:
    made = model(family)
    expected = [by_head(layer) for layer in made(ids, output_attentions=True).attentions]
    seen = observe(made, ids)
    for layer in range(LAYERS):
        entropies, shares = zip(*expected[layer], strict=True)
        assert seen["entropy"][layer] == pytest.approx(entropies, rel=1e-5)
        assert seen["entropy_share"][layer] == pytest.approx(shares, rel=1e-5)
    assert seen["not_finite"] == {"nan": [0] * LAYERS, "inf": [0] * LAYERS}
    assert set(seen) == {"entropy", "entropy_share", "overload", "collapse", "not_finite"}


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = torch.rand(2, 3, 50, 50).softmax(-1)
    whole = entropies(probabilities)
    monkeypatch.setattr("pi_sim.diagnosis.entropy.ELEMENTS", 700)
    assert entropies(probabilities).equal(whole)


class Attention(nn.Module):
    """Returns fixed probabilities (B, H, T, T), as eager attention would."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.probabilities = probabilities

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.probabilities


class Blocks(nn.Module):
    """A model whose numbered blocks are attention alone."""

    def __init__(self, *probabilities: Tensor) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"attn": Attention(each)}) for each in probabilities)

    def forward(self, ids: Tensor) -> Tensor:
        x = ids.float()
        for block in self.blocks:
            x = block["attn"](x)[0]
        return x


UNIFORM = torch.ones(1, 2, 16, 16).tril() / torch.arange(1, 17)[:, None]
ONE_HOT = torch.eye(16).expand(1, 2, 16, 16)


def test_uniform_attention_is_overload_and_one_hot_collapse() -> None:
    seen = observe(Blocks(UNIFORM, ONE_HOT), torch.zeros(1, 16))
    assert seen["entropy"][0] == pytest.approx([sum(math.log(t) for t in range(1, 17)) / 16] * 2)
    assert seen["entropy_share"] == [pytest.approx([1.0, 1.0]), [0.0, 0.0]]
    assert (seen["overload"], seen["collapse"]) == (0.5, 0.5)


def test_limits_belong_to_neither() -> None:
    assert not overloaded(0.9) and overloaded(0.9001)
    assert not collapsed(0.1) and collapsed(0.0999)


def test_a_poisoned_weight_is_counted_and_becomes_null(ids: Tensor) -> None:
    made = model()
    made.transformer.h[1].mlp.c_proj.weight.data[0, 0] = torch.nan  # one column of the second block's output
    made.transformer.h[0].attn.c_attn.weight.data[:, 0] = torch.nan  # the first head's queries
    seen = observe(made, ids)
    assert seen["entropy"][0][0] is None and None not in seen["entropy"][0][1:]
    assert seen["entropy"][1] == [None] * HEADS  # the residual stream carries it everywhere
    assert seen["not_finite"]["nan"] == [ids.numel() * WIDTH] * LAYERS
    assert seen["overload"] + seen["collapse"] <= 0.5


def test_infinities_are_counted_apart_from_nan(ids: Tensor) -> None:
    made = model()
    made.transformer.h[1].mlp.c_proj.bias.data[3] = torch.inf
    assert observe(made, ids)["not_finite"] == {"nan": [0, 0], "inf": [0, ids.numel()]}


def test_slopes_by_layer_and_alphas_beside_the_spread_they_follow(ids: Tensor) -> None:
    made = model()
    made.transformer.h[1].mlp.act = LearnableLeakyReLU(nn.Parameter(torch.tensor([0.25])))
    made.transformer.h[0].ln_1 = DyT(WIDTH, 0.5)
    embedded = made.transformer.wte(ids) + made.transformer.wpe(torch.arange(ids.shape[1]))
    numbers: list[float] = embedded.double().flatten().tolist()
    mean = sum(numbers) / len(numbers)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))
    seen = observe(made, ids)
    assert seen["slopes"] == [None, 0.25]
    (alpha,) = seen["alphas"]
    assert (alpha["module"], alpha["alpha"]) == ("transformer.h.0.ln_1", 0.5)
    assert alpha["inverse_std"] == pytest.approx(1 / deviation, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_training_is_not_disturbed(training: bool, ids: Tensor) -> None:
    made = Scaled(model(), 2.0, 2.0).train(training)
    state = torch.get_rng_state()
    seen = observe(made, ids)
    assert torch.get_rng_state().equal(state)
    assert made.training == made.model.transformer.h[0].training == training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in made.modules())
    assert seen == observe(made.eval(), ids)


def test_attention_that_hides_its_probabilities_is_refused(ids: Tensor) -> None:
    made: Any = AutoModelForCausalLM.from_config(CONFIGS["gpt2"], attn_implementation="sdpa")
    with pytest.raises(UsageError, match="use eager attention"):
        observe(made, ids)
    assert not made.transformer.h[0].attn._forward_hooks
