"""The equation for MPCFormer's substitutes, against the layers of the model cards that use them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.graph.ops import Op
from pi_sim.mpc.kernels import KERNELS
from pi_sim.zoo.layers import Quad, two_quad, two_relu
from tests.helpers.equation import FEW, SEEDS, SHAPES, SMALL, assert_equation, exact, normal, protocol_with
from tests.helpers.two_processes import TwoParties

FORMS = {"2relu": two_relu, "2quad": two_quad}
DIVISION = 0.041
"""Max relative error of CrypTen's reciprocal."""
FORM = pytest.mark.parametrize("form", FORMS)


def reference_softmax(form: str) -> Callable[..., Tensor]:
    """Return the design's own layer, whose mask is added to the scores, as a softmax with a boolean mask."""

    def masked_layer(scores: Tensor, allowed: Tensor | None = None, *, causal: bool = False) -> Tensor:
        hidden = None if allowed is None else torch.where(allowed, 0.0, -torch.inf).double().expand(scores.shape)
        return FORMS[form](scores, hidden)

    return masked_layer


@pytest.mark.parties
@FEW
@given(shape=SHAPES, seed=SEEDS, scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_quad(two_parties: TwoParties, shape: tuple[int, ...], seed: int, scale: float) -> None:
    x = normal(seed, *shape, scale=scale)
    assert_equation(
        two_parties,
        "gelu",
        [x],
        atol=1e-3,
        protocol="mpcformer",
        reference=lambda x, approximate: Quad()(x),
        approximate="none",
    )


def assert_substitute(two_parties: TwoParties, form: str, scores: Tensor) -> None:
    """Check cost and value of a substitute for softmax."""
    assert_equation(
        two_parties,
        "softmax",
        [scores],
        atol=1e-3,
        protocol=protocol_with(softmax=form),
        rtol=DIVISION,
        reference=reference_softmax(form),
    )


@pytest.mark.parties
@FORM
@FEW
@given(rows=SMALL, columns=st.integers(1, 40), seed=SEEDS)
def test_substitutes_for_softmax(two_parties: TwoParties, form: str, rows: int, columns: int, seed: int) -> None:
    scores = normal(seed, rows, columns)
    assert_substitute(two_parties, form, scores)


@pytest.mark.parties
@FORM
@FEW
@given(heads=st.integers(1, 3), length=st.integers(2, 20), seed=SEEDS)
def test_a_causal_mask_leaves_exact_zeros(
    two_parties: TwoParties, form: str, heads: int, length: int, seed: int
) -> None:
    allowed = torch.ones(length, length, dtype=torch.bool).tril()[None]
    scores, protocol = normal(seed, heads, length, length), protocol_with(softmax=form)
    values = assert_equation(
        two_parties,
        "softmax",
        [scores, allowed],
        atol=1e-3,
        protocol=protocol,
        rtol=DIVISION,
        reference=reference_softmax(form),
        causal=True,
    )
    assert not values[~allowed.expand(values.shape)].any()


@pytest.mark.parties
@pytest.mark.parametrize(
    ("form", "score", "mean"),
    [("2quad", 0.005**0.5 - 5, 0.005), ("2quad", 50**0.5 - 5, 50), ("2relu", 0.0, 0.01), ("2relu", 49.99, 50)],
)
def test_substitutes_hold_to_the_ends_of_their_row_means(
    two_parties: TwoParties, form: str, score: float, mean: float
) -> None:
    """2ReLU's mean is never below its floor."""
    domain, _ = KERNELS["softmax", form].domains
    scores = exact(torch.full((2, 8), score, dtype=torch.float64))
    assert domain.statistic(scores).tolist() == pytest.approx([mean] * 2, rel=0.01)
    assert domain.low <= mean * 1.01
    assert mean * 0.99 <= domain.high
    assert_substitute(two_parties, form, scores)


def test_the_domain_of_a_substitute_is_its_distance_from_the_function() -> None:
    """A run then warns of a model that was not distilled for it."""
    (quad,) = KERNELS["gelu", "quad"].domains
    x = torch.tensor([0.0, 1.0])
    assert quad.statistic(x).tolist() == pytest.approx([0.5, 0.0337], abs=1e-3)
    assert quad.high < 0.5
    _, softmax = KERNELS["softmax", "2quad"].domains
    assert softmax.statistic(torch.tensor([[0.0, 0.0]])).max() == 0
    assert softmax.statistic(torch.tensor([[0.0, 5.0]])).max() > softmax.high


# What its functions send on CrypTen, one party; `protocols/published/mpcformer.toml`.
@pytest.mark.parametrize(
    ("op", "rounds", "sent"),
    [
        (Op("gelu", ((128, 768),), (True,), (("approximate", "none"),)), 1, 16 * 128 * 768),
        (Op("softmax", ((12, 128, 128),), (True,)), 40, 12 * 128 * (24 * 128 + 560)),
    ],
    ids=str,
)
def test_published_figures_come_back(op: Op, rounds: int, sent: int) -> None:
    cost = derived.derive_price(op, specs.load_executable_protocol("mpcformer")).cost
    assert (cost.rounds, cost.bytes) == (rounds, sent)


@pytest.mark.slow
def test_2relu_costs_a_comparison_per_position() -> None:
    op = Op("softmax", ((12, 128, 128),), (True,))
    cost = derived.derive_price(op, specs.load_executable_protocol(protocol_with(softmax="2relu"))).cost
    assert (cost.rounds, cost.bytes) == (48, 12 * 128 * (240 * 128 + 560))
    assert cost.offline == 12 * 128 * (128 * 128 + 352)
