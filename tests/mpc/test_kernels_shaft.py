"""The equation for SHAFT's kernels, except elementwise functions: see `test_kernels_elementwise`."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.cost.cost import Cost
from pi_sim.graph.ops import Op
from pi_sim.mpc.kernels import KERNELS, activations
from pi_sim.mpc.primitives.fourier import FourierSeries
from tests.helpers.equation import FEW, SEEDS, SMALL, assert_equation, normal
from tests.helpers.two_processes import TwoParties

PRECISE = 0.002
"""Max error of sixteen steps in fixed point."""


def euler(scores: Tensor, allowed: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Return SHAFT's sixteen Euler steps for softmax, in double precision."""
    keep = torch.ones_like(scores) if allowed is None else allowed.expand(scores.shape).double()
    x = scores.clamp(-4, 12) / 16
    g = keep / keep.sum(-1, keepdim=True)
    for _ in range(16):
        g = g + (x - (g * x).sum(-1, keepdim=True)) * g
    return g


@FEW
@given(rows=SMALL, columns=st.integers(1, 40), scale=st.sampled_from([0.5, 2.0, 8.0]), seed=SEEDS)
def test_softmax(two_parties: TwoParties, rows: int, columns: int, scale: float, seed: int) -> None:
    scores = normal(seed, rows, columns, scale=scale)
    values = assert_equation(two_parties, "softmax", [scores], atol=PRECISE, protocol="shaft", reference=euler)
    assert (values - functional.softmax(scores.clamp(-4, 12), -1)).abs().max() < 0.14


@FEW
@given(heads=st.integers(1, 3), length=st.integers(2, 20), seed=SEEDS)
def test_causal_softmax_is_exactly_zero_where_nothing_is_visible(
    two_parties: TwoParties, heads: int, length: int, seed: int
) -> None:
    allowed = torch.ones(length, length, dtype=torch.bool).tril()[None]
    scores = normal(seed, heads, length, length, scale=3)
    values = assert_equation(
        two_parties, "softmax", [scores, allowed], atol=PRECISE, protocol="shaft", reference=euler, causal=True
    )
    assert not values[~allowed.expand(values.shape)].any()


def test_softmax_holds_to_the_ends_of_its_domain(two_parties: TwoParties) -> None:
    (domain,) = KERNELS["softmax", "ode"].domains
    scores = torch.tensor([[domain.low, domain.high, 0.0], [domain.high, domain.high, domain.low]]).double()
    assert_equation(two_parties, "softmax", [scores], atol=0.14, protocol="shaft")


@FEW
@given(tokens=SMALL, vocabulary=st.integers(2, 40), width=SMALL, seed=SEEDS)
def test_embedding_is_exact(two_parties: TwoParties, tokens: int, vocabulary: int, width: int, seed: int) -> None:
    ids = torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(seed))
    ids[0, 0] = vocabulary - 1
    onehot = functional.one_hot(ids, vocabulary).to(torch.uint8)
    assert_equation(two_parties, "embedding", [normal(seed, vocabulary, width), onehot], atol=0.0, protocol="shaft")


@FEW
@given(rows=SMALL, width=st.integers(8, 32), seed=SEEDS)
def test_norms_take_five_steps(two_parties: TwoParties, rows: int, width: int, seed: int) -> None:
    x, gamma = normal(seed, rows, width, scale=2), normal(seed + 1, width)
    assert_equation(two_parties, "layernorm", [x], atol=0.06, protocol="shaft", eps=1e-5)
    assert_equation(two_parties, "rmsnorm", [x, gamma], atol=0.06, protocol="shaft", eps=1e-5)


def _minus_identity(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x) - x


@pytest.mark.parametrize(
    ("series", "end", "function"),
    [
        (activations.GELU_MINUS_RELU_SERIES, 4, _minus_identity(functional.gelu)),
        (activations.SILU_MINUS_RELU_SERIES, 8, _minus_identity(functional.silu)),
    ],
    ids=["gelu", "silu"],
)
def test_series_are_fourier_series(series: FourierSeries, end: int, function: Callable[[Tensor], Tensor]) -> None:
    """b_j = 2 / L times the integral of f(x) sin(j pi x / L) over [0, L]."""
    x = torch.linspace(0, end, 100_001, dtype=torch.float64)
    for harmonic, coefficient in enumerate(series.sines, start=1):
        integral = torch.trapezoid(function(x) * torch.sin(harmonic * torch.pi * x / end), x).item()
        assert coefficient == pytest.approx(2 / end * integral, abs=1e-7)


# Rounds and bytes of one party that its own counter prints, twice as many for both; `protocols/published/shaft.toml`.
@pytest.mark.parametrize(
    ("op", "rounds", "sent"),
    [
        (Op("gelu", ((1,),), (True,), (("approximate", "none"),)), 19, 472),
        (Op("silu", ((1,),), (True,)), 19, 472),
        (Op("erf", ((1,),), (True,)), 1, 8),
        (Op("softmax", ((1, 128),), (True,)), 41, 976 * 128),
        (Op("layernorm", ((128, 768),), (True,), (("eps", 1e-5),)), 25, 1_607_680),
        (Op("layernorm", ((128, 768), (768,), (768,)), (True,) * 3, (("eps", 1e-5),)), 26, 2_400_256),
        (Op("embedding", ((50, 8), (1, 3, 50)), (True, True)), 2, 8 * (3 + 3 * 50 + 50 * 8)),
    ],
    ids=str,
)
def test_published_figures_come_back(op: Op, rounds: int, sent: int) -> None:
    cost = derived.derive_price(op, specs.load_executable_protocol("shaft")).cost
    assert (cost.rounds, cost.bytes) == (rounds, sent)


def test_a_bounded_series_is_one_opening() -> None:
    op = Op("erf", ((10,),), (True,))
    assert derived.derive_price(op, specs.load_executable_protocol("shaft")).cost == Cost.symmetric(1, 80, 1600)
