"""Every layer against its formula in Python floats, one number at a time."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pi_sim.specs import Surgery
from pi_sim.zoo import layers, surgery
from pi_sim.zoo.layers import DyT, FusedFFN, NoFFN, Rectified, ScaledFFN, activation_factory

NUMBERS = st.lists(st.floats(-8, 8), min_size=2, max_size=6)
WEIGHTS = torch.linspace(0.5, 2, 6, dtype=torch.float64)
BIASES = torch.linspace(-1, 1, 6, dtype=torch.float64)
SLOPE = 0.125


def vector(numbers: list[float]) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def same(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else SLOPE * x,
    "learnable_lrelu": lambda x: x if x > 0 else SLOPE * x,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "quad": lambda x: 0.125 * x**2 + 0.25 * x + 0.5,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(numbers=NUMBERS)
def test_activations(name: str, numbers: list[float]) -> None:
    leaky = {"slope": SLOPE} if "leaky" in name or "lrelu" in name else {}
    layer = activation_factory(Surgery(activation=name, **leaky))().double()
    same(layer(vector(numbers)), [ACTIVATIONS[name](x) for x in numbers])


def test_a_slope_is_learned_by_each_layer_or_by_all_together() -> None:
    for slopes, count in (("layer", 2), ("global", 1)):
        make = activation_factory(Surgery(activation="learnable_lrelu", slopes=slopes))
        layers = nn.ModuleList([make(), make()])
        layers[0](torch.tensor([-2.0, 3.0])).sum().backward()
        assert len(list(layers.parameters())) == count
        assert layers[0].slope.grad.item() == -2


EPS = 1e-3


def normalised(numbers: list[float], centre: float, eps: float = EPS) -> list[float]:
    squares = [(x - centre) ** 2 for x in numbers]
    return [(x - centre) / math.sqrt(sum(squares) / len(squares) + eps) for x in numbers]


NORMS: dict[str, Callable[[list[float]], list[float]]] = {
    "layernorm": lambda numbers: normalised(numbers, sum(numbers) / len(numbers)),
    "rmsnorm": lambda numbers: normalised(numbers, 0.0),
    "dyt": lambda numbers: [math.tanh(0.75 * x) for x in numbers],
    "dyt-hardtanh": lambda numbers: [min(1.0, max(-1.0, 0.75 * x)) for x in numbers],
    "derf": lambda numbers: [math.erf(0.75 * x + 0.25) for x in numbers],
}


@pytest.mark.parametrize("between", ["layernorm", "rmsnorm", "dyt", "derf"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", NORMS)
@settings(max_examples=20)
@given(numbers=NUMBERS)
def test_norms_keep_gain_and_bias(name: str, bias: bool, between: str, numbers: list[float]) -> None:
    """Norms keep both through any replacement between, except that an RMSNorm has no bias to hand on."""
    width = len(numbers)
    old = surgery.replacement_norm(between, nn.LayerNorm(width, bias=bias, eps=EPS), 2.0).double()
    gain, shift = WEIGHTS[:width], BIASES[:width]
    old.weight.data = gain.clone()
    if getattr(old, "bias", None) is not None:
        old.bias.data = shift.clone()
    layer = surgery.replacement_norm(name, old, 0.75).double()
    if name == "derf":
        layer.shift.data.fill_(0.25)
    if not bias or "rmsnorm" in (name, between):
        shift = torch.zeros(width)
    expected = zip(gain.tolist(), NORMS[name](numbers), shift.tolist(), strict=True)
    same(layer(vector(numbers)), [gain * x + shift for gain, x, shift in expected])
    assert (getattr(layer, "bias", None) is not None) == (bias and name != "rmsnorm")


@given(numbers=NUMBERS)
def test_no_norm_and_a_rectified_one(numbers: list[float]) -> None:
    old = nn.LayerNorm(len(numbers), eps=EPS).double()
    same(surgery.replacement_norm("none", old, 1.0)(vector(numbers)), numbers)
    centred = normalised(numbers, sum(numbers) / len(numbers))
    same(Rectified(old)(vector(numbers)), [max(x, 0.0) for x in centred])


ROWS = st.lists(st.lists(st.floats(-4, 30), min_size=3, max_size=3), min_size=3, max_size=3)
SCORES: dict[str, Callable[[float], float]] = {
    "softmax": math.exp,
    "2relu": lambda x: max(x, 0.0) + 0.01,
    "2quad": lambda x: (x + 5) ** 2,
}


@pytest.mark.slow
@pytest.mark.parametrize("form", SCORES)
@given(rows=ROWS)
def test_attention_scores(form: str, rows: list[list[float]]) -> None:
    """Query t attends to keys 0 to t; later weights are exactly zero."""
    mask = torch.full((3, 3), torch.finfo(torch.float64).min, dtype=torch.float64).triu(1)
    found = layers.NORMALISERS[form](torch.tensor(rows, dtype=torch.float64), mask)
    for query, row in enumerate(rows):
        kept = [SCORES[form](x) for x in row[: query + 1]]
        expected = [each / sum(kept) for each in kept] + [0.0] * (2 - query)
        torch.testing.assert_close(found[query], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert (found.triu(1) == 0).all()


def test_attention_shares_keys_by_groups_and_minds_its_temperature() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 2, 4) for heads in (4, 2, 2))
    module = nn.Module()
    layers.add_temperature(module, 4)
    module.inverse_temperature.data = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)
    out, weights = layers.attend(module, query, key, value, None, normalise=layers.softmax)
    for head in range(4):
        scores = query[0, head] @ key[0, head // 2].T / 2 * (head + 1)
        torch.testing.assert_close(weights[0, head], scores.softmax(-1))
        torch.testing.assert_close(out[0, :, head], scores.softmax(-1) @ value[0, head // 2])


def affine_ffn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4))


def test_a_fused_ffn_is_the_same_map() -> None:
    ffn, x = affine_ffn(), torch.randn(2, 3, 4)
    torch.testing.assert_close(FusedFFN.from_ffn(ffn, 4)(x), ffn(x), rtol=1e-4, atol=1e-5)


def test_a_scaled_ffn_scales_both_branches() -> None:
    """Layer and residual add up to beta x + FFN(x) / alpha."""
    ffn, x = affine_ffn(), torch.randn(2, 3, 4)
    scaled = ScaledFFN(ffn)
    torch.testing.assert_close(x + scaled(x), x + ffn(x))
    scaled.beta.data.fill_(0.5)
    scaled.inverse_alpha.data.fill_(1 / 3)
    torch.testing.assert_close(x + scaled(x), 0.5 * x + ffn(x) / 3)


def test_a_dropped_ffn_adds_nothing() -> None:
    assert not NoFFN()(torch.randn(2, 3)).any()


def test_dyt_learns_one_alpha() -> None:
    layer = DyT(3, 0.5)
    assert layer.alpha.shape == (1,)
    layer(torch.ones(2, 3)).sum().backward()
    assert layer.alpha.grad.item() == pytest.approx(6 * (1 - math.tanh(0.5) ** 2))
