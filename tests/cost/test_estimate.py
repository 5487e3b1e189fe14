"""Estimates: views that add up, the most expensive rows, counts, refusals, and all of it without torch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.cli import json_help, main
from pi_sim.cost.cost import Cost, Work
from pi_sim.cost.estimate import OTHER_ROWS, Estimate, Row, View, estimate_model
from pi_sim.cost.pricing import resolve_protocol
from pi_sim.cost.rows import Subtotal
from pi_sim.network import PRESETS
from pi_sim.report.estimates import render_estimates
from pi_sim.zoo.source import ModelSource
from tests.helpers.cli import invoke, python, refused
from tests.helpers.golden import Golden
from tests.helpers.sample_records import estimate, measured_estimate

pytestmark = pytest.mark.usefixtures("no_terminal")

MODEL, CRYPTEN = ModelSource.parse("relu_nonorm", "tiny"), resolve_protocol("crypten")
VIEWS: tuple[View, ...] = ("op", "layer", "module", "total")

COSTS = st.builds(Cost.symmetric, *(st.integers(0, 10**12),) * 3)
WORKS = st.builds(Work, *(st.integers(0, 10**12),) * 4)
MODULES = st.sampled_from(["wte", "h.0", "h.0.mlp", "h.1.mlp.act", "output"])
ROWS = st.builds(
    Row, MODULES, st.sampled_from(["linear", "gelu", "add"]), st.just("(8)"), st.integers(1, 9), COSTS, WORKS
)

SHEET = """
name = "half"
title = "A sheet without embedding"
threat_model = "two semi-honest parties"
source = "a paper"
provenance = "declared"
counted = "both parties"
local = ["lookup", "add", "scale", "reveal"]
"""
PRICE = '[price.{}]\nsource = "table 1"\nprovenance = "{}"\nrounds = {{ each = 2 }}\nbytes = {{ elements = 16 }}\n'


def of(rows: list[Row]) -> Estimate:
    return replace(estimate(), rows=rows)


def sheet(folder: Path, *ops: str) -> str:
    """The path of a declared protocol with prices for some operations."""
    path = folder / "half.toml"
    path.write_text(SHEET + "".join(PRICE.format(op, "scaled" if op == "softmax" else "declared") for op in ops))
    return str(path)


@given(rows=st.lists(ROWS, max_size=12), view=st.sampled_from(VIEWS), top=st.integers(1, 5))
def test_every_view_adds_up_to_the_whole(rows: list[Row], view: View, top: int) -> None:
    result = of(rows)
    parts = result.group_by(view)
    assert Subtotal.sum_of(parts.values()) == result.overall
    leading = result.top_groups(parts, top)
    assert Subtotal.sum_of(leading.values()) == result.overall
    assert len(leading) <= top + 1
    assert (OTHER_ROWS in leading) == (len(parts) > top)


@given(rows=st.lists(ROWS, min_size=1, max_size=12), top=st.integers(1, 5))
def test_no_other_row_is_dearer_than_the_dearest(rows: list[Row], top: int) -> None:
    result = of(rows)
    parts = result.group_by("module")
    leading = result.top_groups(parts, top)
    leading_seconds = [result.seconds(part)["lan"] for key, part in leading.items() if key != OTHER_ROWS]
    other_seconds = [result.seconds(part)["lan"] for key, part in parts.items() if key not in leading]
    assert leading_seconds == sorted(leading_seconds, reverse=True)
    assert not other_seconds or max(other_seconds) <= leading_seconds[-1]


@given(rows=st.lists(ROWS, max_size=12))
def test_within_and_boundary_are_the_whole(rows: list[Row]) -> None:
    result = of([replace(row, module="transformer.wte") if row.module == "wte" else row for row in rows])
    boundary = [row for row in result.rows if row.module in result.embedding_and_head]
    assert Subtotal.sum_of([result.body, *boundary]) == result.overall


def test_work_that_one_row_does_not_tell_is_known_of_none() -> None:
    row = Row("a", "linear", "", 1, Cost(), Work(1))
    assert Subtotal.sum_of([row, replace(row, work=None)]).work is None
    assert Subtotal.sum_of([row, row]).work == Work(2)


@pytest.mark.parametrize("style", ["table", "csv"])
def test_the_dearest_rows(style: Any, golden: Golden) -> None:
    golden(f"estimate-top-{style}", render_estimates([estimate("gelu_ln")], "op", style, top=2))


def test_seconds_of_a_measured_machine_are_those_of_network_and_computing(golden: Golden) -> None:
    golden("estimate-machine-table", render_estimates([measured_estimate()], "op", "table"))
    network, computing = PRESETS["lan"].seconds(83, 66_519_200), 12 * 1e-3 + 83 * 1e-3
    record = measured_estimate().to_json()
    assert record["total"]["compute_seconds"] == pytest.approx(computing)
    assert record["total"]["seconds"]["lan"] == pytest.approx(network + computing)


def test_seconds_of_an_unknown_machine_are_the_network_alone() -> None:
    record = estimate().to_json()
    assert record["total"]["compute_seconds"] is None
    assert record["total"]["seconds"]["lan"] == pytest.approx(PRESETS["lan"].seconds(83, 66_519_200))


@pytest.mark.parametrize(
    ("batch", "past", "title"),
    [(1, None, "128 tokens\n"), (8, None, "8 sequences of 128 tokens each\n"), (1, 511, "128 tokens after 511\n")],
)
def test_the_title_tells_the_question(batch: int, past: int | None, title: str) -> None:
    assert title in render_estimates([replace(estimate(), batch=batch, past=past)], "op", "table")


def test_a_context_too_long_to_price_is_told(tmp_path: Path) -> None:
    config = {"model_type": "mistral", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4}
    sizes = {"num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 50, "max_position_embeddings": 32768}
    path = tmp_path / "long.json"
    path.write_text(json.dumps(config | sizes), encoding="utf-8")
    source = ModelSource.parse(str(path), "tiny")
    estimates = [estimate_model(source, CRYPTEN, length, []) for length in (None, 64)]
    assert [estimate.seq_len for estimate in estimates] == [2048, 64]
    sentence = f"{path} reads up to 32,768 tokens; without --seq-len it is priced at 2,048"
    assert [sentence in estimate.conventions for estimate in estimates] == [True, False]


def test_every_key_of_the_record_is_explained() -> None:
    record = estimate().to_json()
    assert set(record) == set(json_help.ESTIMATE)
    assert set(record["total"]) == set(record["without_embedding_and_head"]) == set(json_help.TOTALS)
    assert set(record["rows"][0]) == set(json_help.ROW)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_costs_as_much_more_where_costs_are_per_element(batch: int) -> None:
    one, many = (estimate_model(MODEL, CRYPTEN, 8, [], batch=sequences).group_by("op") for sequences in (1, batch))
    for op in ("softmax", "relu", "reveal", "embedding"):
        assert many[op].cost.rounds == one[op].cost.rounds
    for op in ("softmax", "relu", "reveal", "matmul"):
        assert many[op].cost.bytes == batch * one[op].cost.bytes
    assert one["linear"].cost.bytes <= many["linear"].cost.bytes <= batch * one["linear"].cost.bytes


def test_offline_bytes_that_no_source_tells_are_no_zero() -> None:
    rows = [replace(row, cost=Cost.symmetric(row.cost.rounds, row.cost.bytes)) for row in estimate().rows]
    untold = replace(of(rows), offline_known=False)
    table = render_estimates([untold], "total", "table")
    assert "offline bytes: not stated by the sources" in table
    assert "│ offline" not in table
    assert untold.to_json()["total"]["offline_bytes"] is None
    assert {row["offline_bytes"] for row in untold.to_json()["rows"]} == {None}


def test_inner_is_what_lies_between_embedding_and_head() -> None:
    full = estimate_model(MODEL, CRYPTEN, 8, [])
    inner = estimate_model(MODEL, CRYPTEN, 8, [], inner=True)
    assert inner.total == inner.body.cost == full.body.cost
    message = invoke("estimate", "--seq-len", "8", "--inner").stdout
    assert "without embedding" in message
    assert "│ total" not in message


def test_a_sheet_without_a_price_is_refused_with_operation_module_and_file(tmp_path: Path) -> None:
    path = sheet(tmp_path, "embedding", "linear", "matmul", "softmax")
    message = refused(invoke("estimate", "--seq-len", "8", "--protocol", path))
    assert "transformer.h.0.mlp.act: protocol half has no price for relu; add [price.relu]" in message
    assert f"({path})." in message


def test_a_refusal_names_whatever_else_lacks_a_price(tmp_path: Path) -> None:
    path = sheet(tmp_path, "linear", "matmul")
    message = refused(invoke("estimate", "--seq-len", "8", "--protocol", path))
    assert f"no price for embedding; add [price.embedding] with its source to its sheet ({path}); " in message
    assert "; nor has it one for softmax, relu." in message


def test_a_refusal_at_the_boundary_alone_names_inner(tmp_path: Path) -> None:
    path = sheet(tmp_path, "linear", "matmul", "softmax", "relu")
    message = refused(invoke("estimate", "--seq-len", "8", "--protocol", path))
    assert "transformer.wte: protocol half has no price for embedding" in message
    assert f"({path}); or leave embedding and head out with --inner." in message
    table = invoke("estimate", "--seq-len", "8", "--protocol", path, "--inner").stdout
    assert (
        "lookup, add, scale: local, cost nothing\nlinear, matmul, relu: declared prices\nsoftmax: scaled prices"
        in table
    )


def test_a_kernel_that_is_not_named_is_refused_likewise(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(Path("protocols/crypten.toml").read_text(encoding="utf-8").replace('relu = "kogge-stone"', "", 1))
    message = refused(invoke("estimate", "--seq-len", "8", "--protocol", str(path)))
    assert "transformer.h.0.mlp.act: protocol crypten has no kernel for relu" in message
    assert f"({path})." in message


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--past", "8", "--seq-len", "8"], "leave --seq-len out"),
        (["--by", "count", "--top", "2"], "--top chooses among rows with prices, which --by count does not have"),
        (["--by", "total", "--top", "2"], "--top chooses among rows"),
        (["--machine", "nowhere.json"], "there is no file nowhere.json"),
    ],
)
def test_questions_without_an_answer(arguments: list[str], sentence: str) -> None:
    assert sentence in refused(invoke("estimate", *arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["estimate", "--seq-len", "8", "--top", "3"],
        ["estimate", "--seq-len", "8", "--by", "count"],
        ["compare", "relu_nonorm", "--seq-len", "8", "--protocol", "crypten", "--protocol", "crypten_tanh"],
    ],
)
def test_a_known_answer_imports_neither_torch_nor_pandas(arguments: list[str]) -> None:
    first = CliRunner().invoke(main, arguments)
    code = f"import sys; from pi_sim.cli import main; main({arguments}, standalone_mode=False)"
    again = python(f"{code}; assert not {{'torch', 'pandas', 'transformers', 'crypten'}} & set(sys.modules)")
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
