"""Ranges against loops over Python floats; domains of kernels, and truncations."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pi_sim import specs
from pi_sim.diagnosis.ranges import FIXED_POINT_LIMIT, Quantity, expected_failures
from pi_sim.inference.diagnosis import kernel_quantities
from pi_sim.zoo.surgery import apply_surgery
from tests.helpers.sample_diagnosis import HEADS, LAYERS, WIDTH, diagnose_model, model


def ranges(diagnosis: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["quantity"], row["module"]): row for row in diagnosis["ranges"]}


def extremes(row: dict[str, Any]) -> tuple[float, float]:
    return row["min"], row["max"]


@pytest.mark.slow
@torch.no_grad()
def test_ranges_are_those_of_the_model_itself(ids: Tensor) -> None:
    network = model()
    rows = ranges(diagnose_model(network, ids))
    out = network(ids, output_hidden_states=True)
    block, x = network.transformer.h[0], out.hidden_states[0]
    variances = [_variance(row) for row in x.double().flatten(0, 1).tolist()]
    assert extremes(rows["variance", "transformer.h.0.ln_1"]) == pytest.approx((min(variances), max(variances)))
    query, key, _ = block.attn.c_attn(block.ln_1(x)).double().unflatten(-1, (3, HEADS, -1)).unbind(2)
    heads = [(query[text, :, head].tolist(), key[text, :, head].tolist()) for text in range(2) for head in range(HEADS)]
    scores = [[_product(q, k) for k in keys[: t + 1]] for queries, keys in heads for t, q in enumerate(queries)]
    maxima = [max(row) for row in scores]
    assert extremes(rows["row maximum", "transformer.h.0.attn"]) == pytest.approx((min(maxima), max(maxima)), rel=1e-4)
    lowest = min(min(row) - max(row) for row in scores)
    assert extremes(rows["score minus row maximum", "transformer.h.0.attn"]) == pytest.approx((lowest, 0.0), rel=1e-4)
    logits = (out.logits.min().item(), out.logits.max().item())
    assert extremes(rows["logits", "output"]) == pytest.approx(logits, rel=1e-4)
    stream = rows["residual stream", "transformer.h.0"]
    assert stream["largest"] >= out.hidden_states[1].abs().max().item() * (1 - 1e-5)
    assert stream["layer"] == 0 and rows["logits", "output"]["layer"] is None
    assert all(row["fits"] for row in rows.values())


def _product(query: list[float], key: list[float]) -> float:
    return sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(WIDTH / HEADS)


def _variance(row: list[float]) -> float:
    mean = sum(row) / len(row)
    return sum((x - mean) ** 2 for x in row) / len(row)


def test_values_beyond_fixed_point_do_not_fit(ids: Tensor) -> None:
    network = model()
    network.transformer.wte.weight.data[:, 0] = 2 * FIXED_POINT_LIMIT
    rows = ranges(diagnose_model(network, ids))
    assert not rows["residual stream", "transformer.h.0"]["fits"]
    network.transformer.wte.weight.data[:, 0] = torch.nan
    broken = ranges(diagnose_model(network, ids))["logits", "output"]
    assert (broken["min"], broken["max"], broken["largest"], broken["fits"]) == (None, None, None, False)


@torch.no_grad()
def test_expected_failures_of_truncations(ids: Tensor) -> None:
    """Counts products alone: a bias is added after truncation, and a norm truncates its squares."""
    network = model()
    network.transformer.h[0].mlp.c_fc.bias.data[:] = 100
    failed = {
        (row["op"], row["module"]): row["expected_failures"] for row in diagnose_model(network, ids)["truncations"]
    }
    inputs: dict[str, Tensor] = {}
    for path in ("transformer.h.0.mlp.c_fc", "transformer.ln_f", "lm_head"):
        network.get_submodule(path).register_forward_pre_hook(lambda _, args, path=path: inputs.update({path: args[0]}))
    network(ids)
    up, normed, head = (x.double() for x in inputs.values())
    products = {
        ("linear", "transformer.h.0.mlp.c_fc"): up @ network.transformer.h[0].mlp.c_fc.weight.double(),
        ("layernorm", "transformer.ln_f"): (normed - normed.mean(-1, keepdim=True)).square(),
        ("linear", "lm_head"): head @ network.lm_head.weight.double().T,
    }
    for place, values in products.items():
        assert failed[place] == pytest.approx(values.abs().sum().item() / 2**32 / len(ids), rel=1e-4)
    assert {op for op, _ in failed} == {"linear", "layernorm", "matmul", "scale"}


def test_expected_failures_are_proportional_and_at_most_one_each() -> None:
    assert expected_failures(torch.tensor([2.0**30, -(2.0**29)])) == 0.375
    assert expected_failures(torch.tensor([2.0**40, 1.0])) == 2
    assert expected_failures(torch.tensor([torch.nan, torch.inf, 1.0])) == 3


@torch.no_grad()
def test_a_transposed_weight_is_not_an_input(ids: Tensor) -> None:
    network = model("llama")
    network.lm_head.weight[0, 0] = 12345
    rows = ranges(diagnose_model(network, ids))
    hidden = network(ids, output_hidden_states=True).hidden_states[-1]
    assert rows["input", "lm_head"]["largest"] == pytest.approx(hidden.abs().max().item(), rel=1e-4)


def test_ranges_are_compared_with_kernel_domains(ids: Tensor) -> None:
    magnitude = Quantity("gelu", "|input|", torch.abs, "small", 0, 1e-3)
    variance = Quantity("layernorm", "variance", lambda x, *_: x.var(-1, unbiased=False), "wide", 0, 1e6)
    rows = ranges(diagnose_model(apply_surgery(model(), {"activation": "gelu"}), ids, magnitude, variance))
    outside, inside = rows["|input|", "transformer.h.1.mlp.act"], rows["variance", "transformer.ln_f"]
    assert (outside["kernel"], outside["domain"], outside["in_domain"]) == ("small", [0, 1e-3], False)
    assert (inside["kernel"], inside["in_domain"]) == ("wide", True)


@pytest.mark.parametrize(("keys", "inside"), [(50, True), (64, False)])
def test_flat_rows_over_many_keys_leave_the_softmax(keys: int, inside: bool) -> None:
    """Entropic overload leaves the domain of its division by the row sum."""
    network = model()
    for block in network.transformer.h:
        nn.init.zeros_(block.attn.c_attn.weight)
        nn.init.zeros_(block.attn.c_attn.bias)
    text = torch.zeros(1, keys, dtype=torch.long)
    rows = ranges(diagnose_model(network, text, *kernel_quantities(specs.load_executable_protocol("crypten"))))
    row = rows["row sum of exponentials", "transformer.h.0.attn"]
    assert (extremes(row), row["in_domain"]) == ((1.0, keys), inside)
    assert rows["row maximum", "transformer.h.0.attn"]["in_domain"]


def test_a_model_that_cannot_be_captured_names_the_reason(ids: Tensor) -> None:
    network = model()
    for block in network.transformer.h:
        block.mlp.act = nn.Softplus()
    diagnosis = diagnose_model(network, ids)
    assert diagnosis["ranges"] == diagnosis["truncations"] == []
    (sentence,) = diagnosis["missing"]
    assert sentence.startswith("Ranges are missing, because the model cannot be captured: ")
    assert "softplus" in sentence
    assert len(diagnosis["histograms"]) == LAYERS
