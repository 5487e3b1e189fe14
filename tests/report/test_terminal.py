"""What commands print on a terminal of 80 columns: no line is longer, and numbers stay whole."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pi_sim.cost.census import Census, OpCounts, count_by_shape
from pi_sim.cost.cost import Cost
from pi_sim.cost.estimate import Estimate, Row
from pi_sim.cost.pricing import protocol_names, resolve_protocol
from pi_sim.graph.ops import Op
from pi_sim.network import PRESETS
from pi_sim.report import kernels, published_figures, terminal
from pi_sim.report.estimates import render_comparison, render_counts, render_estimates
from pi_sim.report.kernels import KernelData
from pi_sim.specs import list_names
from pi_sim.validation import validate_publication
from tests.helpers import sample_bench
from tests.helpers.sample_records import MACHINE, estimate, measured_estimate

pytestmark = pytest.mark.usefixtures("no_terminal")

WIDTH = 80


def check_width(text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []


def large() -> Estimate:
    """Return an estimate of 40 layers with long names, gigabytes and thousands of rounds."""
    rows = [
        Row(
            f"model.layers.{layer}.self_attn.{part}_proj",
            "linear",
            "",
            1,
            Cost.symmetric(3_000, 10**10 + layer, 10**10),
        )
        for layer in range(40)
        for part in "qkvo"
    ]
    return replace(estimate(), model="llama-2-13b", size="own", rows=rows)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("view", ["op", "layer", "module", "total"])
def test_estimates_fit(view: Any, shares: bool) -> None:
    check_width(render_estimates([estimate(), measured_estimate(), large()], view, "table", shares=shares))
    check_width(render_estimates([estimate(), large()], view, "table", top=2, shares=shares))


def test_five_networks_continue_in_a_second_box() -> None:
    text = render_estimates([replace(estimate(), networks=list(PRESETS.values())[:5])], "op", "table")
    check_width(text)
    assert text.count("╭") == text.count(" operation ") == 2


def test_names_that_are_shortened_remain_different() -> None:
    lines = render_estimates([large()], "module", "table").splitlines()
    names = [line.split()[1] for line in lines if "proj" in line and "…" in line]
    assert len(names) == len(set(names)) == 160


@pytest.mark.parametrize("designs", [2, 3, 6])
@pytest.mark.parametrize("view", ["op", "module", "total"])
def test_comparisons_fit(view: Any, designs: int) -> None:
    subjects = [replace(estimate("gelu_ln"), model=f"design{number}") for number in range(designs)]
    subjects[1] = replace(large(), protocol="lean")
    text = render_comparison(subjects, view, "table")
    check_width(text)
    assert "protocol lean (ours)" in text


def test_counts_fit() -> None:
    product = Op("matmul", ((64, 40, 4096, 128), (64, 40, 128, 4096)), (True, True))
    census = Census({(f"h.{layer}", product): 1 for layer in range(40)}, frozenset())
    check_width(render_counts(OpCounts("llama-2-13b", "own", 4096, 64, None, count_by_shape(census)), "table"))


def test_protocols_networks_and_models_fit() -> None:
    protocols = [resolve_protocol(name) for name in protocol_names()]
    listing = terminal.render_protocols(protocols, "table")
    assert "lean (ours)" in listing
    for text in (listing, terminal.render_networks("table"), terminal.render_models("table")):
        check_width(text)
    for protocol in protocols:
        check_width(terminal.render_protocol(protocol, "table"))


@pytest.mark.slow
def test_published_figures_fit() -> None:
    validations = [validate_publication(name) for name in list_names("protocols/published")]
    check_width(published_figures.render_validations(validations, "table"))


def test_a_benchmark_and_a_profile_fit() -> None:
    check_width(kernels.terminal_tables(KernelData(sample_bench.bench(), {}).bench))
    check_width(terminal.render_machine(MACHINE, "table"))


def test_models_can_be_read_by_programs() -> None:
    listing = json.loads(terminal.render_models("json"))
    names = [design["model"] for design in listing["designs"]]
    assert listing.keys() == {"designs", "weights", "sizes", "public"}
    assert [line.split(",")[0] for line in terminal.render_models("csv").strip().splitlines()[1:]] == names
