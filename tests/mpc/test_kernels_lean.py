"""The equation for the kernels of the protocol lean_outsourced: price, counters of two real parties, and value."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.cost.cost import Cost
from pi_sim.graph.ops import Op
from tests.helpers.equation import EXAMPLES, SEEDS, SHAPES, SMALL, assert_equation, exact, normal, protocol_with
from tests.helpers.kernel_cases import LEAN, LEAN_ELEMENTWISE
from tests.helpers.two_processes import TwoParties


@pytest.mark.parties
@pytest.mark.parametrize("name", LEAN_ELEMENTWISE)
@EXAMPLES
@given(SHAPES, SEEDS, st.sampled_from([0.1, 1.0, 10.0, 1000.0]))
def test_elementwise(two_parties: TwoParties, name: str, shape: tuple[int, ...], seed: int, scale: float) -> None:
    attributes = {"approximate": "none"} if name == "gelu" else {}
    assert_equation(
        two_parties,
        name,
        [normal(seed, *shape, scale=scale)],
        atol=LEAN_ELEMENTWISE[name] + 2**-15,
        protocol=LEAN,
        rtol=2**-23,
        **attributes,
    )


@pytest.mark.parties
@pytest.mark.parametrize("name", LEAN_ELEMENTWISE)
def test_elementwise_between_and_at_all_thresholds(two_parties: TwoParties, name: str) -> None:
    attributes = {"approximate": "none"} if name == "gelu" else {}
    grid = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    assert_equation(two_parties, name, [exact(grid)], atol=LEAN_ELEMENTWISE[name] + 2**-15, protocol=LEAN, **attributes)


@pytest.mark.parties
@EXAMPLES
@given(SHAPES, SEEDS)
def test_clamp(two_parties: TwoParties, shape: tuple[int, ...], seed: int) -> None:
    assert_equation(
        two_parties, "clamp", [normal(seed, *shape, scale=3.0)], atol=2**-16, protocol=LEAN, low=-1.0, high=1.0
    )


@pytest.mark.parties
@EXAMPLES
@given(SMALL, SMALL, SMALL, SMALL, SEEDS)
def test_products(two_parties: TwoParties, batch: int, m: int, k: int, n: int, seed: int) -> None:
    x, weight, bias = normal(seed, batch, m, k), normal(seed + 1, k, n), normal(seed + 2, n)
    assert_equation(two_parties, "linear", [x, weight, bias], atol=2**-15, protocol=LEAN)
    assert_equation(two_parties, "linear", [x, weight, bias], atol=2**-31, protocol=LEAN, client_only=True)
    assert_equation(two_parties, "matmul", [x, normal(seed, batch, k, n)], atol=2**-15, protocol=LEAN)
    assert_equation(two_parties, "multiply", [x, normal(seed, k)], atol=2**-15, protocol=LEAN)
    assert_equation(two_parties, "square", [x], atol=2**-15, protocol=LEAN)


@pytest.mark.parties
@EXAMPLES
@given(SHAPES, SEEDS, st.sampled_from([0.125, 0.3, 3.0, -1.0]))
def test_scale(two_parties: TwoParties, shape: tuple[int, ...], seed: int, factor: float) -> None:
    x = normal(seed, *shape)
    assert_equation(two_parties, "scale", [x], atol=2**-13, protocol=LEAN, factor=factor)
    assert_equation(two_parties, "scale_by", [x, normal(seed + 1, *shape).float()], atol=2**-13, protocol=LEAN)


@pytest.mark.parties
@EXAMPLES
@given(SMALL, st.integers(16, 80), SEEDS, st.sampled_from([0.1, 1.0, 100.0]))
def test_norms(two_parties: TwoParties, rows: int, width: int, seed: int, scale: float) -> None:
    x, gamma, beta = normal(seed, rows, width, scale=scale), normal(seed + 1, width), normal(seed + 2, width)
    assert_equation(two_parties, "layernorm", [x, gamma, beta], atol=0.01, protocol=LEAN, eps=1e-5)
    assert_equation(two_parties, "rmsnorm", [x, gamma], atol=0.01, protocol=LEAN, eps=1e-5)


@pytest.mark.parties
@pytest.mark.parametrize("width", [768, 3072])
def test_a_wide_row_far_from_zero_is_centred(two_parties: TwoParties, width: int) -> None:
    assert_equation(two_parties, "layernorm", [normal(1, 2, width) + 50], atol=0.002, protocol=LEAN, eps=1e-5)


@pytest.mark.parties
@pytest.mark.parametrize(
    ("norm", "end"), [("layernorm", 0.05), ("rmsnorm", 0.05), ("layernorm", 9e8), ("rmsnorm", 9e8)]
)
def test_norms_hold_to_the_ends_of_their_domain(two_parties: TwoParties, norm: str, end: float) -> None:
    """`end` is the row's sum of squares."""
    x = torch.tensor([[-1.0, 1.0] * 32], dtype=torch.float64) * (end / 64) ** 0.5
    assert_equation(two_parties, norm, [exact(x)], atol=0.02, protocol=LEAN, eps=0.0)


@pytest.mark.parties
def test_one_high_score_in_a_long_row(two_parties: TwoParties) -> None:
    """The errors of the exponentials add up."""
    scores = torch.zeros(1, 1024, dtype=torch.float64)
    scores[0, 3] = 10.875
    assert_equation(two_parties, "softmax", [scores], atol=0.00003 * 1024, protocol=LEAN)


@pytest.mark.parties
@pytest.mark.parametrize("maximum", [-16_000.0, 16_000.0])
def test_masked_scores_hold_to_the_ends_of_their_domain(two_parties: TwoParties, maximum: float) -> None:
    scores = torch.tensor([[maximum, maximum - 1, maximum - 2, 0.0]], dtype=torch.float64)
    assert_equation(
        two_parties, "softmax", [scores, torch.tensor([[True, True, True, False]])], atol=0.0007, protocol=LEAN
    )


def max_softmax_error(length: int) -> float:
    """Return the max error that `tournament` states for rows of that many positions."""
    return max(0.0007, 0.00003 * length)


@pytest.mark.parties
@EXAMPLES
@given(SMALL, st.integers(1, 40), SEEDS)
def test_causal_softmax(two_parties: TwoParties, heads: int, length: int, seed: int) -> None:
    scores, mask = normal(seed, heads, length, length, scale=4.0), torch.ones(length, length, dtype=torch.bool).tril()
    assert_equation(two_parties, "softmax", [scores, mask], atol=max_softmax_error(length), protocol=LEAN, causal=True)


@pytest.mark.parties
@EXAMPLES
@given(SMALL, SMALL, st.integers(1, 40), SEEDS)
def test_softmax(two_parties: TwoParties, batch: int, rows: int, columns: int, seed: int) -> None:
    scores = normal(seed, batch, rows, columns, scale=4.0)
    assert_equation(two_parties, "softmax", [scores], atol=max_softmax_error(columns), protocol=LEAN)
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) > 0.4
    mask[:, 0] = True
    assert_equation(two_parties, "softmax", [scores, mask], atol=max_softmax_error(columns), protocol=LEAN)


@pytest.mark.parties
def test_flat_rows_over_many_keys(two_parties: TwoParties) -> None:
    assert_equation(two_parties, "softmax", [exact(torch.zeros(2, 300))], atol=0.0001, protocol=LEAN)


@pytest.mark.parties
@EXAMPLES
@given(SMALL, SMALL, st.integers(2, 9), SEEDS)
def test_embedding(two_parties: TwoParties, tokens: int, width: int, vocabulary: int, seed: int) -> None:
    ids = torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(seed))
    onehot = torch.nn.functional.one_hot(ids, vocabulary).to(torch.uint8)
    assert_equation(two_parties, "embedding", [normal(seed, vocabulary, width), onehot], atol=0.0, protocol=LEAN)


@pytest.mark.parties
@pytest.mark.parametrize("kernel", ["split-lookup", "truth-table"])
@EXAMPLES
@given(SMALL, SMALL, st.integers(2, 40), SEEDS)
def test_embedding_that_opens_less(
    two_parties: TwoParties, kernel: str, tokens: int, width: int, vocabulary: int, seed: int
) -> None:
    ids = torch.randint(vocabulary, (2, tokens), generator=torch.Generator().manual_seed(seed))
    ids[0, 0], ids[1, 0] = 0, vocabulary - 1
    onehot = torch.nn.functional.one_hot(ids, vocabulary).to(torch.uint8)
    assert_equation(
        two_parties,
        "embedding",
        [normal(seed, vocabulary, width), onehot],
        atol=0.0,
        protocol=protocol_with(LEAN, embedding=kernel),
    )


@pytest.mark.parametrize(
    ("kernel", "sent", "dealt"),
    [("fixed-weight", 50257, 768), ("split-lookup", 224 + 225, 450 * 768), ("truth-table", 1, 2**16 * 768)],
)
def test_words_that_an_embedding_opens_and_is_dealt(kernel: str, sent: int, dealt: int) -> None:
    """`sent` and `dealt` are words per token of GPT-2, whose table is opened beforehand."""
    op = Op("embedding", ((50257, 768), (1, 128, 50257)), (True, True))
    cost = derived.derive_price(op, specs.load_executable_protocol(protocol_with(LEAN, embedding=kernel))).cost
    assert replace(cost, session=(0, 0)) == Cost.symmetric(1, 8 * 128 * sent, 8 * 128 * dealt)


@pytest.mark.parties
@EXAMPLES
@given(SHAPES, SEEDS)
def test_reciprocal_at_every_scale(two_parties: TwoParties, shape: tuple[int, ...], seed: int) -> None:
    scales = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 22 - 8
    assert_equation(two_parties, "reciprocal", [exact(2**scales)], atol=2**-15, protocol=LEAN, rtol=2e-4)


TARGETS = {
    "relu": (14, 6, 232, 9),
    "gelu": (60, 10, 392, 35),
    "tanh": (30, 7, 376, 23),
}
"""Upper bounds of `lean`: bytes per element and rounds; then those of stock CrypTen."""


@pytest.mark.parametrize("name", TARGETS)
def test_an_element_costs_at_most_its_target(name: str) -> None:
    most, rounds, stock, stock_rounds = TARGETS[name]
    attributes = (("approximate", "none"),) if name == "gelu" else ()
    op = Op(name, ((128, 768),), (True,), attributes)
    lean, crypten = (
        derived.derive_price(op, specs.load_executable_protocol(protocol)).cost for protocol in (LEAN, "crypten")
    )
    assert (crypten.bytes / (128 * 768), crypten.rounds) == (stock, stock_rounds)
    assert lean.bytes <= most * 128 * 768
    assert lean.rounds <= rounds


@pytest.mark.slow
def test_a_score_costs_at_most_its_target() -> None:
    op = Op("softmax", ((12, 128, 128), (128, 128)), (True, False), (("causal", True),))
    cost = derived.derive_price(op, specs.load_executable_protocol(LEAN)).cost
    assert cost.bytes / (12 * math.comb(129, 2)) <= 100
    assert cost.rounds <= 60
