"""Operations counted by shape, as papers list them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.cli import json_help
from pi_sim.cost.census import Census, OpCounts, count_by_shape
from pi_sim.graph.ops import Op
from pi_sim.report.estimates import render_counts
from tests.helpers.cli import invoke
from tests.helpers.golden import Golden

pytestmark = pytest.mark.usefixtures("no_terminal")


def layer(batch: int) -> Census:
    """Attention and FFN of GPT-2 small, twelve times, as its graph holds them."""
    tokens, scores = (batch, 128, 768), (batch, 12, 128, 128)
    heads, keys = (batch, 12, 128, 64), (batch, 12, 64, 128)
    found = [
        *(Op("layernorm", (tokens, (768,), (768,)), (True,) * 3) for _ in range(1)),
        Op("linear", (tokens, (768, 2304), (2304,)), (True,) * 3),
        Op("matmul", (heads, keys), (True, True)),
        Op("softmax", (scores, (1, 1, 128, 128)), (True, False)),
        Op("gelu", ((batch, 128, 3072),), (True,)),
    ]
    return Census(
        {(f"h.{index}", op): 2 if op.name == "layernorm" else 1 for index in range(12) for op in found}, frozenset()
    )


def test_operations_are_counted_as_aero_counts_them() -> None:
    """Table 4 of AERO (arXiv 2410.13060), 12 layers of 12 heads at 128 tokens: SM 144, LN 24, G 12."""
    found = {each.op: (each.count, each.shape) for each in count_by_shape(layer(1))}
    assert found["softmax"] == (144, "128x128")
    assert found["layernorm"] == (24, "128x768")
    assert found["gelu"] == (12, "128x3072")
    assert found["matmul"] == (144, "128x64 @ 64x128")


@given(batch=st.integers(1, 64))
def test_a_batch_is_so_many_operations(batch: int) -> None:
    for one, many in zip(count_by_shape(layer(1)), count_by_shape(layer(batch)), strict=True):
        assert (many.op, many.shape, many.count) == (one.op, one.shape, batch * one.count)
        assert many.multiplications == (one.multiplications and batch * one.multiplications)


@pytest.mark.parametrize("style", ["table", "csv", "markdown", "json"])
def test_a_model_in_counts(style: Any, golden: Golden) -> None:
    golden(f"counts-{style}", render_counts(OpCounts("gelu_ln", "gpt2", 128, 1, None, count_by_shape(layer(1))), style))


def test_counts_are_those_of_the_graph() -> None:
    found = json.loads(invoke("estimate", "--seq-len", "8", "--by", "count", "--format", "json").stdout)
    told = {(each["op"], each["shape"]): each["count"] for each in found["operations"]}
    assert told["softmax", "8x8"] == 4 * 4
    assert told["relu", "8x512"] == 4
    inner = json.loads(invoke("estimate", "--seq-len", "8", "--by", "count", "--inner", "--format", "json").stdout)
    assert {each["op"] for each in found["operations"]} - {each["op"] for each in inner["operations"]} == {
        "embedding",
        "reveal",
    }


def test_a_decode_step_is_one_row_of_scores() -> None:
    found = json.loads(invoke("estimate", "--past", "7", "--by", "count", "--format", "json").stdout)
    told = {(each["op"], each["shape"]): each["count"] for each in found["operations"]}
    assert (found["seq_len"], found["past"]) == (1, 7)
    assert told["softmax", "1x8"] == 4 * 4
    assert told["relu", "1x512"] == 4


def test_every_key_of_the_record_is_explained() -> None:
    assert set(OpCounts("m", "s", 1, 1, None, []).to_json()) == set(json_help.COUNTS)
