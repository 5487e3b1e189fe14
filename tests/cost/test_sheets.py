"""Declared protocols: every figure has its source, published ones come back, and a wrong sheet is told where."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.cost.cost import ZERO_COST, Cost, Work
from pi_sim.cost.estimate import estimate_model
from pi_sim.cost.pricing import machine_of, op_work, price_op, resolve_protocol
from pi_sim.cost.sheet import PRICEABLE_NAMES, op_features
from pi_sim.errors import UnpricedError, UsageError
from pi_sim.graph.ops import VOCABULARY, Op
from pi_sim.network import Network
from pi_sim.specs.protocols import BYTES_PER_UNIT, FEATURES
from pi_sim.zoo.source import ModelSource
from tests.helpers.cli import invoke

SHEETS = [
    name for name in specs.list_names("protocols") if isinstance(specs.load_protocol(name), specs.DeclaredProtocol)
]
PRODUCTS = ("linear", "matmul", "embedding")

SHEET = """
name = "mine"
title = "A protocol"
threat_model = "none"
source = "nowhere"
provenance = "declared"
counted = "one party"
local = ["add"]

[price.relu]
source = "Table 1"
rounds = { each = 2 }
bytes = { elements = 3 }
"""


def op(name: str, *shapes: tuple[int, ...], **attributes: Any) -> Op:
    return Op(name, shapes, (True,) * len(shapes), tuple(attributes.items()))


def sized(name: str, rows: int, cols: int) -> Op:
    """An operation on rows x cols, with an inner length of 8 where it is a product."""
    if name == "embedding":
        return op(name, (8, cols), (1, rows, 8))
    if name in PRODUCTS:
        return op(name, (rows, 8), (8, cols))
    base, _, form = name.partition("-")
    if base == "multiply":
        return op(base, (rows, cols), (rows, cols))
    return op(base, (rows, cols), *([(cols,)] if form == "affine" else []), approximate=form or "none")


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", SHEETS)
def test_every_figure_has_a_source_and_a_unit(name: str) -> None:
    sheet = resolve_protocol(name)
    assert isinstance(sheet, specs.DeclaredProtocol)
    assert set(sheet.price) <= PRICEABLE_NAMES
    assert set(sheet.local) <= set(VOCABULARY)
    for entry in sheet.price.values():
        assert len(entry.source) > 5
        assert entry.unit in BYTES_PER_UNIT
        assert entry.provenance != "scaled" or entry.at or entry.note


MB = 1e6
ROWS = (128, 768)
SCORES = (12, 128, 128)


# What the sources print, in bytes of all parties, and rounds. CrypTen++: CrypTen's counter, which adds what is
# received. SPU 0.9.5: its link counters; the rounds of three parties are those of the first and may differ by a few.
@pytest.mark.parametrize(
    ("name", "operation", "rounds", "total"),
    [
        ("crypten_plus", op("relu", (8,)), 9, 125.75 * 8),
        ("crypten_plus", op("clamp", (8,), low=-1.0, high=1.0), 9, 251.5 * 8),
        ("crypten_plus", op("tanh", (8,)), 23, 413.75 * 8),
        ("semi2k", op("multiply", ROWS, ROWS), 2, 3.932 * MB),
        ("semi2k", op("relu", ROWS), 8, 14.156 * MB),
        ("semi2k", op("gelu", ROWS, approximate="tanh"), 45, 77.857 * MB),
        ("semi2k", op("gelu", ROWS, approximate="none"), 181, 383.582 * MB),
        ("semi2k", op("softmax", SCORES), 119, 274.072 * MB),
        ("semi2k", op("layernorm", ROWS), 32, 7.976 * MB),
        ("semi2k", op("linear", ROWS, (768, 768)), 2, 11.796 * MB),
        ("semi2k", op("reciprocal", (1536,)), 36, 1.551 * MB),
        ("aby3", op("multiply", ROWS, ROWS), 3, 5.112 * MB),
        ("aby3", op("relu", ROWS), 11, 16.908 * MB),
        ("aby3", op("gelu", ROWS, approximate="tanh"), 65, 108.921 * MB),
        ("aby3", op("gelu", ROWS, approximate="none"), 246, 521.404 * MB),
        ("aby3", op("softmax", SCORES), 166, 394.002 * MB),
        ("aby3", op("layernorm", ROWS), 54, 10.429 * MB),
        ("aby3", op("linear", ROWS, (768, 768)), 3, 5.112 * MB),
        ("aby3", op("reciprocal", (1536,)), 51, 2.052 * MB),
        ("puma", op("gelu", ROWS, approximate="tanh"), 55, 90.440 * MB),
        ("puma", op("softmax", SCORES), 170, 427.555 * MB),
        ("mpspdz_rep3", op("gelu", ROWS, approximate="none"), 28, 77.992 * MB),
        ("mpspdz_dealer", op("linear", ROWS, (768, 768)), 32, 12.595 * MB),
    ],
    ids=str,
)
def test_published_figures_come_back(name: str, operation: Op, rounds: int, total: float) -> None:
    sheet = resolve_protocol(name)
    cost = price_op(operation, sheet).cost
    assert cost.bytes * sheet.parties == pytest.approx(total, rel=5e-4)
    assert cost.rounds == pytest.approx(rounds, abs=10 if sheet.parties == 3 else 0)


def test_delphi_sends_a_garbled_circuit_beforehand() -> None:
    assert price_op(op("relu", (10,)), resolve_protocol("delphi")).cost == Cost.symmetric(1, 11_840, 170_720)


STOCK = ["linear", "matmul", "multiply", "square", "reciprocal", "layernorm", "layernorm-affine"]


@pytest.mark.parametrize("operation", STOCK)
def test_what_is_left_of_crypten_costs_what_its_kernels_cost(operation: str) -> None:
    """CrypTen++ is built on CrypTen: its sheet agrees with the derived prices wherever it changed nothing."""
    sized_op = sized(operation, 4, 32)
    attributes = (("eps", 1e-5),) if "norm" in operation else ()
    sized_op = Op(sized_op.name, sized_op.shapes, sized_op.secret, attributes)
    declared, stock = (
        price_op(sized_op, resolve_protocol("crypten_plus")).cost,
        derived.derive_price(sized_op, specs.load_executable_protocol("crypten")).cost,
    )
    assert (declared.rounds, declared.bytes) == (stock.rounds, stock.bytes)


LOADED = {name: specs.read_toml(specs.DeclaredProtocol, specs.find_file("protocols", name)) for name in SHEETS}
ENTRIES = st.sampled_from([(name, operation) for name, sheet in LOADED.items() for operation in sheet.price])
LENGTHS = st.integers(2, 300)


@given(entry=ENTRIES, rows=LENGTHS, cols=LENGTHS, more=st.integers(0, 300))
def test_a_larger_operation_never_costs_less(entry: tuple[str, str], rows: int, cols: int, more: int) -> None:
    name, operation = entry
    sheet = LOADED[name]
    least = price_op(sized(operation, rows, cols), sheet).cost
    for larger in (sized(operation, rows + more, cols), sized(operation, rows, cols + more)):
        cost = price_op(larger, sheet).cost
        assert cost.rounds >= least.rounds
        assert cost.bytes >= least.bytes
        assert cost.offline >= least.offline


@given(entry=ENTRIES, rows=LENGTHS, cols=LENGTHS, more=LENGTHS)
def test_rows_add_up(entry: tuple[str, str], rows: int, cols: int, more: int) -> None:
    """Rows cost the same wherever they are added: a figure is rounded to bytes once, at the end."""
    name, operation = entry
    costs = [price_op(sized(operation, rows + n * more, cols), LOADED[name]).cost for n in range(3)]
    for kind in ("rounds", "bytes", "offline"):
        first, second, third = (getattr(cost, kind) for cost in costs)
        assert abs((third - second) - (second - first)) <= 2


def test_an_operation_without_a_price_is_refused() -> None:
    with pytest.raises(UnpricedError, match=r"protocol delphi has no price for softmax; add \[price.softmax\]"):
        price_op(op("softmax", (4, 4)), resolve_protocol("delphi"))


def test_what_is_local_costs_nothing() -> None:
    assert price_op(op("add", (4,), (4,)), resolve_protocol("crypten_plus")).cost == ZERO_COST
    assert price_op(op("view", (4,), shape=(2, 2)), resolve_protocol("delphi")).cost == ZERO_COST
    assert op_work(op("add", (4,), (4,)), resolve_protocol("crypten_plus")) == Work()
    assert op_work(op("relu", (4,)), resolve_protocol("crypten_plus")) is None


def test_a_form_of_its_own_goes_before_the_price_of_all() -> None:
    semi2k = resolve_protocol("semi2k")
    assert price_op(op("gelu", (1,), approximate="tanh"), semi2k).cost.bytes == 396
    assert price_op(op("gelu", (1,), approximate="none"), semi2k).cost.bytes == 1951
    with pytest.raises(UnpricedError, match="no price for rmsnorm"):
        price_op(op("rmsnorm", (4, 4)), semi2k)


def test_features_are_read_off_shapes() -> None:
    product = op_features(op("matmul", (2, 3, 4, 8), (2, 3, 8, 5)))
    assert {key: product[key] for key in ("mk", "kn", "mn", "mkn", "batch")} == {
        "mk": 192, "kn": 240, "mn": 120, "mkn": 960, "batch": 6,
    }  # fmt: skip
    assert op_features(op("linear", (2, 3, 8), (8, 5)))["batch"] == 1
    assert op_features(op("multiply", (4, 8), (8,)))["operands"] == 40
    assert op_features(op("softmax", (2, 4, 4), causal=True))["visible"] == 2 * 10
    assert set(product) | set(op_features(op("relu", (2,)))) == set(FEATURES)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("elements = 3", "elemnts = 3", "line 13, key 'price.relu.bytes.elemnts"),
        ("elements = 3", "mk = 3", "the price of relu is per mk, which only products have"),
        ('source = "Table 1"', "", "line 10, key 'price.relu.source': Field required"),
        ('source = "Table 1"', 'source = ""', "line 11, key 'price.relu.source'"),
        ("elements = 3 }", 'elements = 3 }\nunit = "TB"', "line 14, key 'price.relu.unit'"),
        ("elements = 3 }", "elements = 3 }\nat = { rows = 8 }", "line 10, key 'price.relu'"),
        ("elements = 3 }", "elements = 3 }\nat = { elements = 0 }", "line 14, key 'price.relu.at.elements"),
        ("[price.relu]", "[price.rleu]", "line 10, key 'price': there is no operation 'rleu'"),
        ('["add"]', '["ad"]', "line 8, key 'local': there is no operation 'ad'"),
        ('["add"]', '["relu"]', "line 10, key 'price.relu': the sheet calls relu local"),
        ("[price.relu]", "[price.relu", "at line 10"),
        ('"one party"', '"nobody"', "line 7, key 'counted'"),
    ],
)
def test_a_wrong_sheet_names_file_line_and_key(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    path = written(tmp_path, SHEET.replace(old, new))
    if "which only products have" in sentence:
        with pytest.raises(UsageError, match=sentence):
            price_op(op("relu", (4,)), resolve_protocol(path))
        return
    result = invoke("protocols", path)
    assert result.exit_code == 2
    assert path in result.stderr
    assert sentence in result.stderr


def test_a_negative_price_is_refused() -> None:
    sheet = specs.load_protocol("crypten_plus")
    below = sheet.price["softmax"].model_copy(update={"bytes": {"elements": -1.0}})
    wrong = sheet.model_copy(update={"price": {**sheet.price, "softmax": below}})
    with pytest.raises(UsageError, match=r"negative price for softmax.*mend \[price\.softmax\]"):
        price_op(op("softmax", (4, 8)), wrong)


def test_seconds_that_a_source_states_stand_in_an_estimate() -> None:
    """Figure 6 of Nimbus, at 3 Gbps and 1 ms: of a block of BERT, all but the norms, whose prices miss it."""
    network = Network("figure 6", 0.0005, 3e9, "a test")
    for name, published in (("nimbus", 0.56 + 0.28 + 0.73), ("bumblebee", 2.23 + 0.96 + 0.73)):
        sheet = resolve_protocol(name)
        parts = [op("softmax", (12, 128, 128)), op("gelu", (128, 3072))]
        parts += [op("matmul", (12, 128, 64), (12, 64, 128)), op("matmul", (12, 128, 128), (12, 128, 64))]
        machine = machine_of(sheet, None)
        assert machine
        seconds = 0.0
        for part in parts:
            price = price_op(part, sheet)
            assert price.work
            seconds += machine.seconds(price.work, 0) + network.seconds(price.cost.rounds, price.cost.bytes)
        assert seconds == pytest.approx(published, rel=0.01)
    estimate = estimate_model(ModelSource.parse("gelu_ln", "gpt2"), sheet, 128, [network], inner=True)
    assert estimate.compute_seconds(estimate.overall)
    hardware = "two machines of 64 vCPU and 128 GB, as the sources of bumblebee state it"
    assert any(hardware in line for line in estimate.conventions)
    whole = estimate_model(ModelSource.parse("gelu_ln", "gpt2"), resolve_protocol("puma"), 128, [network])
    assert whole.compute_seconds(whole.overall) is None
