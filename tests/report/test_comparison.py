"""Designs and protocols side by side: numbers of each, and what multiple of the first they are."""

import csv
import io
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.cli import json_help
from pi_sim.errors import UsageError
from pi_sim.report.estimates import check_comparable, merge_orders, render_comparison
from tests.helpers.cli import invoke, refused
from tests.helpers.golden import Golden
from tests.helpers.sample_records import MACHINE, estimate, measured_estimate

pytestmark = pytest.mark.usefixtures("no_terminal")

PAIR = [estimate("gelu_ln"), estimate("relu_nonorm")]
ORDERS = st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=4)


@pytest.mark.parametrize(("view", "style"), [*product(["op", "total"], ["table", "markdown", "csv"])])
def test_two_designs(view: Any, style: Any, golden: Golden) -> None:
    golden(f"compare-{view}-{style}", render_comparison(PAIR, view, style))


def test_three_subjects_are_all_compared_with_the_first(golden: Golden) -> None:
    golden("compare-three-table", render_comparison([*PAIR, estimate("gelu_ln", "crypten_tanh")], "op", "table"))


def test_json_holds_the_estimates_and_every_ratio() -> None:
    record = json.loads(render_comparison(PAIR, "op", "json"))
    assert set(record) == set(json_help.COMPARISON)
    assert record["estimates"] == [each.to_json() for each in PAIR]
    total = record["totals"][0]
    assert total["rounds_ratio_relu_nonorm"] == total["rounds_relu_nonorm"] / total["rounds_gelu_ln"] == 83 / 123


def test_rows_add_up_to_the_totals() -> None:
    """What one subject lacks is empty, not a zero that somebody counted."""
    lines = list(csv.DictReader(io.StringIO(render_comparison(PAIR, "op", "csv"))))
    for each in PAIR:
        assert sum(int(line[f"bytes_{each.model}"] or 0) for line in lines) == each.total.bytes
    assert {line["op"] for line in lines if not line["bytes_relu_nonorm"]} == {"layernorm", "gelu"}


@given(orders=ORDERS)
def test_every_key_stands_once_and_the_first_order_is_kept(orders: list[list[str]]) -> None:
    found = merge_orders(orders)
    assert sorted(found) == sorted({key for order in orders for key in order})
    if orders:
        assert [key for key in found if key in orders[0]] == orders[0]


def test_a_new_row_stands_where_it_would() -> None:
    assert merge_orders([["linear", "gelu", "reveal"], ["linear", "relu", "reveal"]]) == [
        "linear",
        "gelu",
        "relu",
        "reveal",
    ]


def test_seconds_are_compared_like_with_like() -> None:
    """Where computing is known of one alone, both are the network's."""
    both, one = (
        check_comparable([measured_estimate(), measured_estimate()]),
        check_comparable([measured_estimate(), replace(PAIR[0], machine=MACHINE)]),
    )
    assert all(each.compute_seconds(each.overall) for each in both)
    assert all(each.compute_seconds(each.overall) is None for each in one)
    assert "only" in render_comparison(one, "op", "table")


@pytest.mark.slow
def test_models_from_the_command_line() -> None:
    record = json.loads(invoke("compare", "gelu_ln", "relu_nonorm", "--seq-len", "8", "--format", "json").stdout)
    assert [each["model"] for each in record["estimates"]] == ["gelu_ln", "relu_nonorm"]
    assert record["totals"][0]["rounds_ratio_relu_nonorm"] < 1


@pytest.mark.slow
def test_protocols_from_the_command_line() -> None:
    protocols = ["--protocol", "crypten", "--protocol", "crypten_tanh"]
    said = invoke("compare", "gelu_ln", *protocols, "--seq-len", "8", "--by", "total", "--format", "csv").stdout
    assert said.startswith("total,rounds_crypten,rounds_crypten_tanh,rounds_ratio_crypten_tanh,")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gelu_ln"], "gelu_ln stands alone; name another model, or give --protocol twice"),
        (["gelu_ln", "gelu_ln"], "gelu_ln stands alone"),
        (["gelu_ln", "nobody"], "unknown model 'nobody'"),
    ],
)
def test_nothing_to_compare_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert sentence in refused(invoke("compare", *arguments, "--seq-len", "8"))


def test_different_lengths_are_refused() -> None:
    sentence = r"\(gelu_ln 128 and relu_nonorm 64 tokens\); choose one --seq-len for all"
    with pytest.raises(UsageError, match=sentence):
        check_comparable([PAIR[0], replace(PAIR[1], seq_len=64)])


def test_more_than_there_are_letters_are_refused() -> None:
    with pytest.raises(UsageError, match="no table of 27 designs"):
        check_comparable([replace(PAIR[0], model=f"model{number}") for number in range(27)])


def test_protocols_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(Path("protocols/crypten.toml").read_text(encoding="utf-8"))
    said = refused(invoke("compare", "relu_nonorm", "--seq-len", "8", "--protocol", "crypten", "--protocol", str(path)))
    assert "two protocols are both called crypten; change the name in one of their files" in said
