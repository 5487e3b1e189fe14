"""How large numbers are, against loops over Python's floats; domains of kernels, and truncations."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pi_sim import specs
from pi_sim.diagnosis.ranges import LIMIT, Quantity
from pi_sim.diagnosis.truncations import failures
from pi_sim.run.diagnose import quantities
from pi_sim.zoo.surgery import operate
from tests.helpers.sample_diagnosis import HEADS, LAYERS, WIDTH, examine_all, model


def ranges(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["quantity"], row["module"]): row for row in found["ranges"]}


def extremes(row: dict[str, Any]) -> tuple[float, float]:
    return row["min"], row["max"]


@pytest.mark.slow
@torch.no_grad()
def test_ranges_are_those_of_the_model_itself(ids: Tensor) -> None:
    made = model()
    found = ranges(examine_all(made, ids))
    out = made(ids, output_hidden_states=True)
    block, x = made.transformer.h[0], out.hidden_states[0]
    variances = [_variance(row) for row in x.double().flatten(0, 1).tolist()]
    assert extremes(found["variance", "transformer.h.0.ln_1"]) == pytest.approx((min(variances), max(variances)))
    query, key, _ = block.attn.c_attn(block.ln_1(x)).double().unflatten(-1, (3, HEADS, -1)).unbind(2)
    heads = [(query[text, :, head].tolist(), key[text, :, head].tolist()) for text in range(2) for head in range(HEADS)]
    rows = [[_product(q, k) for k in keys[: t + 1]] for queries, keys in heads for t, q in enumerate(queries)]
    maxima = [max(row) for row in rows]
    assert extremes(found["row maximum", "transformer.h.0.attn"]) == pytest.approx((min(maxima), max(maxima)), rel=1e-4)
    lowest = min(min(row) - max(row) for row in rows)
    assert extremes(found["score minus row maximum", "transformer.h.0.attn"]) == pytest.approx((lowest, 0.0), rel=1e-4)
    logits = (out.logits.min().item(), out.logits.max().item())
    assert extremes(found["logits", "output"]) == pytest.approx(logits, rel=1e-4)
    stream = found["residual stream", "transformer.h.0"]
    assert stream["largest"] >= out.hidden_states[1].abs().max().item() * (1 - 1e-5)
    assert stream["layer"] == 0 and found["logits", "output"]["layer"] is None
    assert all(row["fits"] for row in found.values())


def _product(query: list[float], key: list[float]) -> float:
    return sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(WIDTH / HEADS)


def _variance(row: list[float]) -> float:
    mean = sum(row) / len(row)
    return sum((x - mean) ** 2 for x in row) / len(row)


def test_what_fixed_point_cannot_hold_does_not_fit(ids: Tensor) -> None:
    made = model()
    made.transformer.wte.weight.data[:, 0] = 2 * LIMIT
    found = ranges(examine_all(made, ids))
    assert not found["residual stream", "transformer.h.0"]["fits"]
    made.transformer.wte.weight.data[:, 0] = torch.nan
    broken = ranges(examine_all(made, ids))["logits", "output"]
    assert (broken["min"], broken["max"], broken["largest"], broken["fits"]) == (None, None, None, False)


@torch.no_grad()
def test_expected_failures_of_truncations(ids: Tensor) -> None:
    """Of the products alone: a bias is added to what was truncated, and a norm truncates its squares."""
    made = model()
    made.transformer.h[0].mlp.c_fc.bias.data[:] = 100
    failed = {(row["op"], row["module"]): row["expected_failures"] for row in examine_all(made, ids)["truncations"]}
    seen: dict[str, Tensor] = {}
    for path in ("transformer.h.0.mlp.c_fc", "transformer.ln_f", "lm_head"):
        made.get_submodule(path).register_forward_pre_hook(lambda _, args, path=path: seen.update({path: args[0]}))
    made(ids)
    up, normed, head = (x.double() for x in seen.values())
    products = {
        ("linear", "transformer.h.0.mlp.c_fc"): up @ made.transformer.h[0].mlp.c_fc.weight.double(),
        ("layernorm", "transformer.ln_f"): (normed - normed.mean(-1, keepdim=True)).square(),
        ("linear", "lm_head"): head @ made.lm_head.weight.double().T,
    }
    for place, values in products.items():
        assert failed[place] == pytest.approx(values.abs().sum().item() / 2**32 / len(ids), rel=1e-4)
    assert {op for op, _ in failed} == {"linear", "layernorm", "matmul", "scale"}


def test_a_truncation_fails_in_proportion_and_at_most_once() -> None:
    assert failures(torch.tensor([2.0**30, -(2.0**29)])) == 0.375
    assert failures(torch.tensor([2.0**40, 1.0])) == 2
    assert failures(torch.tensor([torch.nan, torch.inf, 1.0])) == 3


@torch.no_grad()
def test_a_transposed_weight_is_no_input(ids: Tensor) -> None:
    made = model("llama")
    made.lm_head.weight[0, 0] = 12345
    found = ranges(examine_all(made, ids))
    hidden = made(ids, output_hidden_states=True).hidden_states[-1]
    assert found["input", "lm_head"]["largest"] == pytest.approx(hidden.abs().max().item(), rel=1e-4)


def test_a_kernels_domain_is_held_or_left(ids: Tensor) -> None:
    magnitude = Quantity("gelu", "|input|", torch.abs, "small", 0, 1e-3)
    variance = Quantity("layernorm", "variance", lambda x, *_: x.var(-1, unbiased=False), "wide", 0, 1e6)
    found = ranges(examine_all(operate(model(), {"activation": "gelu"}), ids, magnitude, variance))
    left, held = found["|input|", "transformer.h.1.mlp.act"], found["variance", "transformer.ln_f"]
    assert (left["kernel"], left["domain"], left["in_domain"]) == ("small", [0, 1e-3], False)
    assert (held["kernel"], held["in_domain"]) == ("wide", True)


@pytest.mark.parametrize(("keys", "inside"), [(50, True), (64, False)])
def test_flat_rows_over_many_keys_leave_the_softmax(keys: int, inside: bool) -> None:
    """Entropic overload is what its division by the row's sum is not right for."""
    made = model()
    for block in made.transformer.h:
        nn.init.zeros_(block.attn.c_attn.weight)
        nn.init.zeros_(block.attn.c_attn.bias)
    text = torch.zeros(1, keys, dtype=torch.long)
    found = ranges(examine_all(made, text, *quantities(specs.protocol_card("crypten"))))
    row = found["row sum of exponentials", "transformer.h.0.attn"]
    assert (extremes(row), row["in_domain"]) == ((1.0, keys), inside)
    assert found["row maximum", "transformer.h.0.attn"]["in_domain"]


def test_what_cannot_be_captured_is_said(ids: Tensor) -> None:
    made = model()
    for block in made.transformer.h:
        block.mlp.act = nn.Softplus()
    found = examine_all(made, ids)
    assert found["ranges"] == found["truncations"] == []
    (sentence,) = found["missing"]
    assert sentence.startswith("Ranges are missing, because the model cannot be captured: ")
    assert "softplus" in sentence
    assert len(found["histograms"]) == LAYERS
