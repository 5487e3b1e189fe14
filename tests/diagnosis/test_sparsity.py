"""Zeros, the work that they would save, and the distributions that they come from."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPTJConfig, MixtralConfig

from pi_sim.diagnosis import places
from pi_sim.diagnosis.histogram import BINS, Histogram
from pi_sim.zoo.surgery import operate
from tests.helpers.sample_diagnosis import CONFIGS, LAYERS, SHORT, WIDTH, examine_all, model


def test_sparsity_and_flops_of_a_known_relu_model(ids: Tensor) -> None:
    made = operate(model(), {"activation": "relu"})
    for block in made.transformer.h:
        nn.init.zeros_(block.mlp.c_fc.weight)
        block.mlp.c_fc.bias.data = torch.where(torch.arange(4 * WIDTH) < 48, -1.0, 1.0)
    found = examine_all(made, ids)
    assert found["sparsity"] == {"qkv": [0.0] * LAYERS, "up": [0.0] * LAYERS, "down": [48 / 128] * LAYERS}
    whole_work = LAYERS * 2 * WIDTH * (3 + 1 + 4 + 4) * WIDTH
    saved = LAYERS * 2 * 4 * WIDTH * WIDTH * 48 / 128
    assert found["flops"] == {"per_token": whole_work, "saved": saved, "share": saved / whole_work}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_relu_after_norms_shows_at_qkv_and_up(family: str, ids: Tensor) -> None:
    sparsity = examine_all(operate(model(family), {"relu_after_norm": True}), ids)["sparsity"]
    for role in ("qkv", "up"):
        assert all(0.2 < share < 0.8 for share in sparsity[role])


def test_zeros_in_a_scaled_ffn_are_seen(ids: Tensor) -> None:
    plan = {"norm": "none", "final_norm": "none", "activation": "relu", "ffn": "scaled"}
    found = examine_all(operate(model(), plan), ids)
    negative = [each["negative"] for each in found["histograms"]]
    assert found["sparsity"]["down"] == pytest.approx(negative) and min(negative) > 0
    assert found["flops"]["share"] == pytest.approx(sum(negative) / LAYERS * 4 / (3 + 1 + 4 + 4))
    assert found["missing"] == []


OWN = {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4, "vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0}


def test_matrices_of_unknown_names_are_said_not_to_be_looked_at(ids: Tensor) -> None:
    made = AutoModelForCausalLM.from_config(GPTJConfig(**OWN), attn_implementation="eager").eval()
    found = examine_all(made, ids)
    assert found["sparsity"]["up"] == [None] * 2 and found["sparsity"]["qkv"] == [0.0] * 2
    (sentence,) = (each for each in found["missing"] if "zeros" in each.lower())
    assert sentence == (
        "Zeros before transformer.h.*.mlp.fc_in, transformer.h.*.mlp.fc_out are not counted: the names tell no role."
    )


def test_experts_that_are_no_modules_are_said_not_to_be_looked_at() -> None:
    config = MixtralConfig(**SHORT, num_local_experts=2, num_key_value_heads=2)
    assert places.unknown(AutoModelForCausalLM.from_config(config)) == ["model.layers.0.mlp"]


@pytest.mark.parametrize("family", CONFIGS)
def test_every_name_of_the_known_families_is_known(family: str) -> None:
    assert places.unknown(model(family)) == []


def test_a_layer_without_ffn_has_no_sparsity_there(ids: Tensor) -> None:
    found = examine_all(operate(model(), {"dropped_ffn": [1]}), ids)
    assert found["missing"] == []
    assert found["sparsity"]["up"][0] == 0.0 and found["sparsity"]["up"][1] is None
    assert [each["layer"] for each in found["histograms"]] == [0]


def test_histogram_counts_as_a_loop_does() -> None:
    batches = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    histogram, counts = Histogram(2.0), [0] * BINS
    for batch in batches:
        histogram.add(batch)
    numbers: list[float] = batches.double().flatten().tolist()
    for x in numbers:
        if -2 <= x < 2:
            counts[int((x + 2) / 4 * BINS)] += 1
    assert histogram.to_json() == {
        "reach": 2.0,
        "counts": counts,
        "below": sum(x < -2 for x in numbers),
        "above": sum(x > 2 for x in numbers),
        "negative": sum(x < 0 for x in numbers) / len(numbers),
    }


def test_pre_activations_below_zero_are_a_relus_zeros(ids: Tensor) -> None:
    found = examine_all(operate(model("opt"), {"activation": "relu"}), ids)
    negative = [each["negative"] for each in found["histograms"]]
    assert negative == pytest.approx(found["sparsity"]["down"])
    for each in found["histograms"]:
        assert sum(each["counts"]) + each["below"] + each["above"] == ids.numel() * 64
