"""Exact zeros, the work that they would save, and histograms of pre-activations."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPTJConfig, MixtralConfig

from pi_sim.diagnosis.hooks import HISTOGRAM_BINS, Histogram
from pi_sim.zoo import modules
from pi_sim.zoo.surgery import apply_surgery
from tests.helpers.sample_diagnosis import CONFIGS, LAYERS, SHORT, WIDTH, diagnose_model, model


def test_sparsity_and_flops_of_a_known_relu_model(ids: Tensor) -> None:
    network = apply_surgery(model(), {"activation": "relu"})
    for block in network.transformer.h:
        nn.init.zeros_(block.mlp.c_fc.weight)
        block.mlp.c_fc.bias.data = torch.where(torch.arange(4 * WIDTH) < 48, -1.0, 1.0)
    diagnosis = diagnose_model(network, ids)
    assert diagnosis["sparsity"] == {"qkv": [0.0] * LAYERS, "up": [0.0] * LAYERS, "down": [48 / 128] * LAYERS}
    whole_work = LAYERS * 2 * WIDTH * (3 + 1 + 4 + 4) * WIDTH
    saved = LAYERS * 2 * 4 * WIDTH * WIDTH * 48 / 128
    assert diagnosis["flops"] == {"per_token": whole_work, "saved": saved, "share": saved / whole_work}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_relu_after_norms_shows_at_qkv_and_up(family: str, ids: Tensor) -> None:
    sparsity = diagnose_model(apply_surgery(model(family), {"relu_after_norm": True}), ids)["sparsity"]
    for role in ("qkv", "up"):
        assert all(0.2 < share < 0.8 for share in sparsity[role])


def test_zeros_in_a_scaled_ffn_are_counted(ids: Tensor) -> None:
    plan = {"norm": "none", "final_norm": "none", "activation": "relu", "ffn": "scaled"}
    diagnosis = diagnose_model(apply_surgery(model(), plan), ids)
    negative = [histogram["negative"] for histogram in diagnosis["histograms"]]
    assert diagnosis["sparsity"]["down"] == pytest.approx(negative) and min(negative) > 0
    assert diagnosis["flops"]["share"] == pytest.approx(sum(negative) / LAYERS * 4 / (3 + 1 + 4 + 4))
    assert diagnosis["missing"] == []


OWN = {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4, "vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0}


def test_matrices_of_unknown_role_are_reported(ids: Tensor) -> None:
    network = AutoModelForCausalLM.from_config(GPTJConfig(**OWN), attn_implementation="eager").eval()
    diagnosis = diagnose_model(network, ids)
    assert diagnosis["sparsity"]["up"] == [None] * 2 and diagnosis["sparsity"]["qkv"] == [0.0] * 2
    (sentence,) = (sentence for sentence in diagnosis["missing"] if "zeros" in sentence.lower())
    assert sentence == (
        "Zeros before transformer.h.*.mlp.fc_in, transformer.h.*.mlp.fc_out are not counted: their names show no role."
    )


def test_experts_that_are_not_modules_are_reported() -> None:
    config = MixtralConfig(**SHORT, num_local_experts=2, num_key_value_heads=2)
    assert modules.unclassified_matrices(AutoModelForCausalLM.from_config(config)) == ["model.layers.0.mlp"]


@pytest.mark.parametrize("family", CONFIGS)
def test_every_matrix_of_the_supported_families_has_a_role(family: str) -> None:
    assert modules.unclassified_matrices(model(family)) == []


def test_a_layer_without_ffn_has_no_sparsity_there(ids: Tensor) -> None:
    diagnosis = diagnose_model(apply_surgery(model(), {"dropped_ffn": [1]}), ids)
    assert diagnosis["missing"] == []
    assert diagnosis["sparsity"]["up"][0] == 0.0 and diagnosis["sparsity"]["up"][1] is None
    assert [histogram["layer"] for histogram in diagnosis["histograms"]] == [0]


def test_histogram_counts_as_a_loop_does() -> None:
    batches = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    histogram, counts = Histogram(2.0), [0] * HISTOGRAM_BINS
    for batch in batches:
        histogram.add(batch)
    numbers: list[float] = batches.double().flatten().tolist()
    for x in numbers:
        if -2 <= x < 2:
            counts[int((x + 2) / 4 * HISTOGRAM_BINS)] += 1
    assert histogram.to_json() == {
        "reach": 2.0,
        "counts": counts,
        "below": sum(x < -2 for x in numbers),
        "above": sum(x > 2 for x in numbers),
        "negative": sum(x < 0 for x in numbers) / len(numbers),
    }


def test_pre_activations_below_zero_are_a_relus_zeros(ids: Tensor) -> None:
    diagnosis = diagnose_model(apply_surgery(model("opt"), {"activation": "relu"}), ids)
    negative = [histogram["negative"] for histogram in diagnosis["histograms"]]
    assert negative == pytest.approx(diagnosis["sparsity"]["down"])
    for histogram in diagnosis["histograms"]:
        assert sum(histogram["counts"]) + histogram["below"] + histogram["above"] == ids.numel() * 64
