"""The equation for the kernels of our own: priced, computed by two real parties, and read in the clear."""

import math

import pytest
import torch
from equation import EXAMPLES, SEEDS, SHAPES, SMALL, choosing, exact, hold, normal
from hypothesis import given
from hypothesis import strategies as st
from parties import Parties

from pi_sim import specs
from pi_sim.cost import phantom
from pi_sim.cost.cost import Cost
from pi_sim.graph.ops import Op

LEAN = "lean"
ELEMENTWISE = {
    "relu": 0.0,
    "gelu": 0.0003,
    "silu": 0.0012,
    "tanh": 0.0003,
    "erf": 0.0002,
}
"""How far each may be off, for inputs of any size."""
CHOSEN = specs.protocol_card(LEAN).kernels
TESTED = {
    *ELEMENTWISE,
    *("clamp", "linear", "matmul", "multiply", "square", "scale", "scale_by"),
    *("layernorm", "rmsnorm", "softmax", "embedding"),
}
OURS = {(op, CHOSEN[op]) for op in TESTED} | {("embedding", "halves"), ("embedding", "truth-table")}
"""What this file tests; `test_equation` insists on every kernel."""


@pytest.mark.parametrize("name", ELEMENTWISE)
@EXAMPLES
@given(SHAPES, SEEDS, st.sampled_from([0.1, 1.0, 10.0, 1000.0]))
def test_elementwise(parties: Parties, name: str, shape: tuple[int, ...], seed: int, scale: float) -> None:
    more = {"approximate": "none"} if name == "gelu" else {}
    hold(parties, name, [normal(seed, *shape, scale=scale)], ELEMENTWISE[name] + 2**-15, LEAN, 2**-23, **more)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_between_and_at_all_thresholds(parties: Parties, name: str) -> None:
    more = {"approximate": "none"} if name == "gelu" else {}
    everywhere = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    hold(parties, name, [exact(everywhere)], ELEMENTWISE[name] + 2**-15, LEAN, **more)


@EXAMPLES
@given(SHAPES, SEEDS)
def test_clamp(parties: Parties, shape: tuple[int, ...], seed: int) -> None:
    hold(parties, "clamp", [normal(seed, *shape, scale=3.0)], 2**-16, LEAN, low=-1.0, high=1.0)


@EXAMPLES
@given(SMALL, SMALL, SMALL, SMALL, SEEDS)
def test_products(parties: Parties, batch: int, m: int, k: int, n: int, seed: int) -> None:
    x, weight, bias = normal(seed, batch, m, k), normal(seed + 1, k, n), normal(seed + 2, n)
    hold(parties, "linear", [x, weight, bias], 2**-15, LEAN)
    hold(parties, "linear", [x, weight, bias], 2**-31, LEAN, revealed=True)
    hold(parties, "matmul", [x, normal(seed, batch, k, n)], 2**-15, LEAN)
    hold(parties, "multiply", [x, normal(seed, k)], 2**-15, LEAN)
    hold(parties, "square", [x], 2**-15, LEAN)


@EXAMPLES
@given(SHAPES, SEEDS, st.sampled_from([0.125, 0.3, 3.0, -1.0]))
def test_scale(parties: Parties, shape: tuple[int, ...], seed: int, factor: float) -> None:
    x = normal(seed, *shape)
    hold(parties, "scale", [x], 2**-13, LEAN, factor=factor)
    hold(parties, "scale_by", [x, normal(seed + 1, *shape).float()], 2**-13, LEAN)


@EXAMPLES
@given(SMALL, st.integers(16, 80), SEEDS, st.sampled_from([0.1, 1.0, 100.0]))
def test_norms(parties: Parties, rows: int, width: int, seed: int, scale: float) -> None:
    x, gamma, beta = normal(seed, rows, width, scale=scale), normal(seed + 1, width), normal(seed + 2, width)
    hold(parties, "layernorm", [x, gamma, beta], 0.01, LEAN, eps=1e-5)
    hold(parties, "rmsnorm", [x, gamma], 0.01, LEAN, eps=1e-5)


@pytest.mark.parametrize("width", [768, 3072])
def test_a_wide_row_far_from_zero_is_centred(parties: Parties, width: int) -> None:
    hold(parties, "layernorm", [normal(1, 2, width) + 50], 0.002, LEAN, eps=1e-5)


@pytest.mark.parametrize(
    ("norm", "end"), [("layernorm", 0.05), ("rmsnorm", 0.05), ("layernorm", 9e8), ("rmsnorm", 9e8)]
)
def test_norms_hold_to_the_ends_of_their_domain(parties: Parties, norm: str, end: float) -> None:
    """The row's sum of squares."""
    x = torch.tensor([[-1.0, 1.0] * 32], dtype=torch.float64) * (end / 64) ** 0.5
    hold(parties, norm, [exact(x)], 0.02, LEAN, eps=0.0)


def test_one_high_score_in_a_long_row(parties: Parties) -> None:
    """What every exponential is off by adds up."""
    scores = torch.zeros(1, 1024, dtype=torch.float64)
    scores[0, 3] = 10.875
    hold(parties, "softmax", [scores], 0.00003 * 1024, LEAN)


@pytest.mark.parametrize("maximum", [-16_000.0, 16_000.0])
def test_masked_scores_hold_to_the_ends_of_their_domain(parties: Parties, maximum: float) -> None:
    scores = torch.tensor([[maximum, maximum - 1, maximum - 2, 0.0]], dtype=torch.float64)
    hold(parties, "softmax", [scores, torch.tensor([[True, True, True, False]])], 0.0007, LEAN)


@EXAMPLES
@given(SMALL, st.integers(1, 40), SEEDS)
def test_causal_softmax(parties: Parties, heads: int, length: int, seed: int) -> None:
    scores, mask = normal(seed, heads, length, length, scale=4.0), torch.ones(length, length, dtype=torch.bool).tril()
    hold(parties, "softmax", [scores, mask], 0.0007, LEAN, causal=True)


@EXAMPLES
@given(SMALL, SMALL, st.integers(1, 40), SEEDS)
def test_softmax(parties: Parties, batch: int, rows: int, columns: int, seed: int) -> None:
    scores = normal(seed, batch, rows, columns, scale=4.0)
    hold(parties, "softmax", [scores], 0.0007, LEAN)
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) > 0.4
    mask[:, 0] = True
    hold(parties, "softmax", [scores, mask], 0.0007, LEAN)


def test_flat_rows_over_many_keys(parties: Parties) -> None:
    hold(parties, "softmax", [exact(torch.zeros(2, 300))], 0.0001, LEAN)


@EXAMPLES
@given(SMALL, SMALL, st.integers(2, 9), SEEDS)
def test_embedding(parties: Parties, tokens: int, width: int, vocabulary: int, seed: int) -> None:
    ids = torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(seed))
    onehot = torch.nn.functional.one_hot(ids, vocabulary).to(torch.uint8)
    hold(parties, "embedding", [normal(seed, vocabulary, width), onehot], 0.0, LEAN)


@pytest.mark.parametrize("kernel", ["halves", "truth-table"])
@EXAMPLES
@given(SMALL, SMALL, st.integers(2, 40), SEEDS)
def test_embedding_that_opens_less(
    parties: Parties, kernel: str, tokens: int, width: int, vocabulary: int, seed: int
) -> None:
    ids = torch.randint(vocabulary, (2, tokens), generator=torch.Generator().manual_seed(seed))
    ids[0, 0], ids[1, 0] = 0, vocabulary - 1
    onehot = torch.nn.functional.one_hot(ids, vocabulary).to(torch.uint8)
    hold(parties, "embedding", [normal(seed, vocabulary, width), onehot], 0.0, choosing(LEAN, embedding=kernel))


@pytest.mark.parametrize(
    ("kernel", "sent", "dealt"),
    [("stationary", 50257, 768), ("halves", 224 + 225, 450 * 768), ("truth-table", 1, 2**16 * 768)],
)
def test_what_an_embedding_opens_and_is_dealt(kernel: str, sent: int, dealt: int) -> None:
    """Words for each token of GPT-2; a table is opened under its mask before."""
    op = Op("embedding", ((50257, 768), (1, 128, 50257)), (True, True))
    found = phantom.price(op, specs.protocol_card(choosing(LEAN, embedding=kernel)))
    assert found == Cost(1, 8 * 128 * sent, 8 * 128 * dealt)


@EXAMPLES
@given(SHAPES, SEEDS)
def test_reciprocal_at_every_scale(parties: Parties, shape: tuple[int, ...], seed: int) -> None:
    scales = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 22 - 8
    hold(parties, "reciprocal", [exact(2**scales)], 2**-15, LEAN, 2e-4)


TARGETS = {
    "relu": (14, 6, 232, 9),
    "gelu": (60, 10, 392, 35),
    "tanh": (30, 7, 376, 23),
}
"""Bytes an element and rounds that `lean` keeps to, and those of stock CrypTen."""


@pytest.mark.parametrize("name", TARGETS)
def test_an_element_costs_what_it_may(name: str) -> None:
    most, rounds, stock, stock_rounds = TARGETS[name]
    more = (("approximate", "none"),) if name == "gelu" else ()
    op = Op(name, ((128, 768),), (True,), more)
    lean, crypten = (phantom.price(op, specs.protocol_card(protocol)) for protocol in (LEAN, "crypten"))
    assert (crypten.bytes / (128 * 768), crypten.rounds) == (stock, stock_rounds)
    assert lean.bytes <= most * 128 * 768
    assert lean.rounds <= rounds


def test_a_score_costs_what_it_may() -> None:
    op = Op("softmax", ((12, 128, 128), (128, 128)), (True, False), (("causal", True),))
    found = phantom.price(op, specs.protocol_card(LEAN))
    assert found.bytes / (12 * math.comb(129, 2)) <= 100
    assert found.rounds <= 60
