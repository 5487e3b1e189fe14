"""Attention entropy against loops over Python floats, for models of every family."""

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, LlamaConfig, MistralConfig

from pi_sim.diagnosis.diagnose import quick_diagnosis
from pi_sim.diagnosis.entropy import attention_entropy, is_collapsed, is_overloaded
from pi_sim.zoo import modules
from pi_sim.zoo.layers import ATTENTION_IMPLEMENTATIONS
from pi_sim.zoo.surgery import apply_surgery
from tests.helpers.sample_diagnosis import CONFIGS, LAYERS, SHORT, model


def entropy(row: list[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def by_head(probabilities: Tensor) -> list[tuple[float, float]]:
    """Return (entropy, share of maximum) of each head of (B, H, T, T), by loops in float64."""
    pairs = []
    for head in probabilities.double().transpose(0, 1).tolist():
        rows = [(entropy(row), count) for text in head for count, row in enumerate(text, start=1)]
        shares = [value / math.log(count) for value, count in rows if count > 1]
        pairs.append((sum(value for value, _ in rows) / len(rows), sum(shares) / len(shares)))
    return pairs


@pytest.mark.parametrize("family", CONFIGS)
def test_entropies_of_every_family(family: str, ids: Tensor) -> None:
    network = model(family)
    expected = [by_head(layer) for layer in network(ids, output_attentions=True).attentions]
    diagnosis = quick_diagnosis(network, ids)
    for layer in range(LAYERS):
        entropies, shares = zip(*expected[layer], strict=True)
        assert diagnosis["entropy"][layer] == pytest.approx(entropies, rel=1e-5)
        assert diagnosis["entropy_share"][layer] == pytest.approx(shares, rel=1e-5)
    assert diagnosis["non_finite"] == {"nan": [0] * LAYERS, "inf": [0] * LAYERS}
    assert set(diagnosis) == {"entropy", "entropy_share", "overload", "collapse", "non_finite"}


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("form", ["2relu", "2quad"])
def test_entropies_of_other_attention(family: str, form: str, ids: Tensor) -> None:
    network = apply_surgery(model(family), {"attention": form})
    diagnosis, captured = quick_diagnosis(network, ids), []
    for path in modules.attention_paths(network):
        network.get_submodule(path).register_forward_hook(lambda module, args, output: captured.append(output[1]))
    network(ids)
    for layer in range(LAYERS):
        assert captured[layer].sum(-1).allclose(torch.ones(1))
        entropies, _ = zip(*by_head(captured[layer].detach()), strict=True)
        assert diagnosis["entropy"][layer] == pytest.approx(entropies, rel=1e-5)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = torch.rand(2, 3, 50, 50).softmax(-1)
    expected = attention_entropy(probabilities)
    monkeypatch.setattr("pi_sim.diagnosis.entropy.BLOCK_ELEMENTS", 700)
    assert attention_entropy(probabilities).equal(expected)


class Attention(nn.Module):
    """Returns fixed probabilities (B, H, T, T), as eager attention would."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.probabilities = probabilities

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.probabilities


class Blocks(nn.Module):
    """A model whose numbered blocks consist of attention only."""

    def __init__(self, *probabilities: Tensor) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"attn": Attention(matrix)}) for matrix in probabilities)

    def forward(self, ids: Tensor) -> Tensor:
        x = ids.float()
        for block in self.blocks:
            x = block["attn"](x)[0]
        return x


UNIFORM = torch.ones(1, 2, 16, 16).tril() / torch.arange(1, 17)[:, None]
ONE_HOT = torch.eye(16).expand(1, 2, 16, 16)


def test_uniform_attention_is_overload_and_one_hot_collapse() -> None:
    diagnosis = quick_diagnosis(Blocks(UNIFORM, ONE_HOT), torch.zeros(1, 16))
    assert diagnosis["entropy"][0] == pytest.approx([sum(math.log(t) for t in range(1, 17)) / 16] * 2)
    assert diagnosis["entropy_share"] == [pytest.approx([1.0, 1.0]), [0.0, 0.0]]
    assert (diagnosis["overload"], diagnosis["collapse"]) == (0.5, 0.5)


WINDOW = 3
VISIBLE = {
    "all": BertConfig(**SHORT),
    "earlier": LlamaConfig(**SHORT),
    "window": MistralConfig(**SHORT, num_key_value_heads=2, sliding_window=WINDOW),
}


@pytest.mark.parametrize("visible", VISIBLE)
@pytest.mark.parametrize("form", ["softmax", "2quad"])
def test_entropy_share_is_one_for_uniform_attention_over_visible_keys(visible: str, form: str, ids: Tensor) -> None:
    network = AutoModel.from_config(VISIBLE[visible], attn_implementation=ATTENTION_IMPLEMENTATIONS[form]).eval()
    for path, part in network.named_modules():
        if path.endswith(("query", "q_proj")):
            nn.init.zeros_(part.weight)
    diagnosis = quick_diagnosis(network, ids)
    counts = {"all": [8] * 8, "earlier": range(1, 9), "window": [min(t, WINDOW) for t in range(1, 9)]}
    assert diagnosis["entropy"] == [pytest.approx([sum(map(math.log, counts[visible])) / 8] * 2)]
    assert diagnosis["entropy_share"] == [pytest.approx([1.0, 1.0])]


def test_a_key_whose_exponential_underflows_counts_as_visible(ids: Tensor) -> None:
    network = model("llama")
    for path, part in network.named_modules():
        if path.endswith(("q_proj", "k_proj")):
            part.weight.data *= 100
    attentions = network(ids, output_attentions=True).attentions
    assert (attentions[0].amax(1)[:, -1] == 0).any()
    shares = [share for _, share in by_head(attentions[0].detach())]
    assert quick_diagnosis(network, ids)["entropy_share"][0] == pytest.approx(shares, rel=1e-5)


def test_shares_at_the_thresholds_are_neither_overload_nor_collapse() -> None:
    assert not is_overloaded(0.9) and is_overloaded(0.9001)
    assert not is_collapsed(0.1) and is_collapsed(0.0999)
