"""Censuses: counted by hand for GPT-2, and additive over parts of a model or of a batch."""

from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_sim.cost.census import Census, capture_census
from pi_sim.cost.cost import ZERO_COST, Cost
from pi_sim.cost.pricing import price_census
from pi_sim.cost.sheet import op_features
from pi_sim.graph.capture import capture_model
from pi_sim.graph.ops import Graph, Op
from pi_sim.specs import load_executable_protocol
from pi_sim.zoo.source import ModelSource
from tests.helpers.hf_models import FAMILIES, build_model, input_length

CRYPTEN = load_executable_protocol("crypten")
FEW = settings(max_examples=6)


def shaped(counts: dict[tuple[str, Op], int]) -> Counter[str]:
    """Count each operation at its shapes, in all modules."""
    totals: Counter[str] = Counter()
    for (_, op), count in counts.items():
        totals[str(op)] += count
    return totals


def test_gpt2_small_is_counted_by_hand() -> None:
    """12 layers of width 768 with 12 heads of 64, and 128 tokens.

    A layer has two norms, four linear maps (one makes queries, keys and values), two products of each of its heads, a
    scaling, a masked softmax over 12 x 128 x 128 scores, a GELU of 128 x 3072, and two sums with the residual.
    """
    assert shaped(capture_census(ModelSource.parse("gpt2", "tiny"), 128).counts) == {
        "embedding(50257x768, 1x128x50257)": 1,
        "lookup(1024x768, 1x128)": 1,
        "add(1x128x768, 1x128x768)": 1 + 12 * 2,
        "layernorm(1x128x768, 768, 768, eps=1e-05)": 12 * 2 + 1,
        "linear(128x768, 768x2304, 2304)": 12,
        "linear(128x768, 768x768, 768)": 12,
        "linear(128x768, 768x3072, 3072)": 12,
        "linear(128x3072, 3072x768, 768)": 12,
        "matmul(1x12x128x64, 1x12x64x128)": 12,
        "matmul(1x12x128x128, 1x12x128x64)": 12,
        "scale(1x12x128x128, factor=0.125)": 12,
        "softmax(1x12x128x128, 1x1x128x128, causal=True)": 12,
        "gelu(1x128x3072, approximate=tanh)": 12,
        "linear(1x128x768, 768x50257, client_only=True)": 1,
        "reveal(1x128x50257)": 1,
    }


@pytest.mark.slow
def test_a_batch_and_a_step_are_questions_of_their_own() -> None:
    counts = [
        capture_census(ModelSource.parse("gpt2", "tiny"), 8),
        capture_census(ModelSource.parse("gpt2", "tiny"), 8, batch=2),
        capture_census(ModelSource.parse("gpt2", "tiny"), 1, past=7),
    ]
    assert len({shaped(census.counts)["softmax(1x12x8x8, 1x1x8x8, causal=True)"] for census in counts[:2]}) == 2
    softmaxes = [str(op) for census in counts for _, op in census.counts if op.name == "softmax"]
    assert sorted(set(softmaxes)) == [
        "softmax(1x12x1x8)", "softmax(1x12x8x8, 1x1x8x8, causal=True)", "softmax(2x12x8x8, 2x1x8x8, causal=True)",
    ]  # fmt: skip


@cache
def graph(family: str, length: int, batch: int = 1, layers: int = 1) -> Graph:
    with torch.device("meta"):
        model = build_model(family, num_hidden_layers=layers)
    return capture_model(model, length, batch)


def total(counted_graph: Graph) -> Cost:
    counts = Census(dict(Counter(counted_graph.census())), frozenset())
    return sum((row.cost for row in price_census(counts, CRYPTEN)), ZERO_COST)


@pytest.mark.slow
@FEW
@given(family=st.sampled_from(sorted(FAMILIES)), data=st.data())
def test_a_graph_costs_what_its_pieces_cost(family: str, data: st.DataObject) -> None:
    """Cut between any two operations."""
    full = graph(family, input_length(family))
    at = data.draw(st.integers(0, len(full.nodes)))
    pieces = [Graph(full.input, full.vocabulary, nodes=part) for part in (full.nodes[:at], full.nodes[at:])]
    assert sum(map(total, pieces), ZERO_COST) == total(full)


@pytest.mark.slow
@FEW
@given(family=st.sampled_from(sorted(FAMILIES)), one=st.integers(1, 3), other=st.integers(1, 3))
def test_a_batch_has_the_elements_of_its_parts(family: str, one: int, other: int) -> None:
    """Elements that grow with the batch are additive in its sequences; weights are counted once."""
    together, *apart = (
        Counter[str](elements(graph(family, input_length(family), batch))) for batch in (one + other, one, other)
    )
    assert together == apart[0] + apart[1]


def elements(counted_graph: Graph) -> Counter[str]:
    """Elements of results and multiplications, by operation, but what weights and positions need once for all texts."""
    totals: Counter[str] = Counter()
    for _, op in counted_graph.census():
        if op.name != "lookup" and len(op.shapes[0]) > 1:
            features = op_features(op)
            totals[op.name] += round(features.get("mkn", features["elements"]))
    return totals


@pytest.mark.parametrize("family", ["gpt2", "llama-grouped", "bert", "vit"])
def test_every_further_layer_costs_the_same(family: str) -> None:
    one, two, three = (total(graph(family, input_length(family), layers=layers)) for layers in (1, 2, 3))
    assert three.bytes - two.bytes == two.bytes - one.bytes > 0
    assert three.rounds - two.rounds == two.rounds - one.rounds > 0
    assert three.offline - two.offline == two.offline - one.offline > 0


@pytest.mark.slow
@FEW
@given(family=st.sampled_from(["gpt2", "mistral"]), lengths=st.tuples(*(st.integers(2, 16),) * 2))
def test_a_longer_text_costs_more(family: str, lengths: tuple[int, int]) -> None:
    short, long = sorted(lengths)
    less, more = total(graph(family, short)), total(graph(family, long))
    assert less.rounds <= more.rounds
    assert (less.bytes < more.bytes and less.offline < more.offline) or short == long
