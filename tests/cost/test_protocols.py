"""Protocols as the command line lists them, and those that other packages offer."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pi_sim import specs
from pi_sim.cost.cost import ZERO_COST, Cost
from pi_sim.cost.pricing import (
    op_coverage,
    price_op,
    price_provenance,
    protocol_names,
    resolve_protocol,
)
from pi_sim.errors import UnpricedError, UsageError
from pi_sim.graph.ops import STRUCTURAL, VOCABULARY, Op
from pi_sim.mpc.kernels.registry import KERNELS, UNIVERSAL, kernel_names
from pi_sim.specs.toml import toml_line
from tests.helpers.cli import invoke

FILES = sorted(Path("protocols").glob("*.toml"))


def op(name: str, *shapes: tuple[int, ...], **attributes: Any) -> Op:
    return Op(name, shapes, (True,) * len(shapes), tuple(attributes.items()))


def test_operations_that_no_protocol_names_have_one_kernel() -> None:
    """Coverage relies on it, so that the listing imports no kernels."""
    protocols = map(specs.load_protocol, specs.list_names("protocols"))
    named = {op for card in protocols if isinstance(card, specs.ExecutableProtocol) for op in card.kernels}
    assert all(len(kernel_names(op)) == 1 for op in VOCABULARY.keys() - named)


def test_operations_without_a_choice_of_kernels_are_known_without_torch() -> None:
    universal = {name for name, kernel in KERNELS if kernel == UNIVERSAL}
    assert {name for name, operation in VOCABULARY.items() if operation.kind != "interactive"} == universal - {"reveal"}
    assert all("local" in VOCABULARY[name].doc for name in universal - {"reveal"})


HEAD = 'name = "own"\ntitle = "t"\nthreat_model = "m"\nsource = "s"\n'


def test_a_protocol_states_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    path, base = tmp_path / "own.toml", specs.load_executable_protocol("crypten")
    tables = '[kernels]\ngelu = "quad"\n[settings]\n"functions.exp_iterations" = 9\n'
    head = 'name = "own"\ntitle = "t"\nsource = "s"\n'
    path.write_text(f'{head}extends = "crypten"\n{tables}', encoding="utf-8")
    protocol = specs.load_executable_protocol(str(path))
    assert (protocol.source, protocol.threat_model) == ("s", base.threat_model)
    assert protocol.kernels == base.kernels | {"gelu": "quad"}
    assert protocol.settings == base.settings | {"functions.exp_iterations": 9}


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("shaft", "line 5, key 'extends': shaft extends another protocol itself"),
        ("puma", "protocol puma is declared"),
        ("magic", "unknown protocol 'magic'"),
    ],
)
def test_only_an_executable_protocol_can_be_extended(tmp_path: Path, base: str, sentence: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'{HEAD}extends = "{base}"\n', encoding="utf-8")
    with pytest.raises(UsageError, match=sentence):
        specs.load_protocol(str(path))


def test_coverage_tells_how_an_operation_is_priced() -> None:
    names = ("crypten", "crypten_plus", "semi2k", "mpspdz_rep3", "delphi")
    assert [op_coverage("gelu", resolve_protocol(name)) for name in names] == [
        "derived",
        "declared",
        "fitted",
        "scaled",
        "none",
    ]
    assert [op_coverage("add", resolve_protocol(name)) for name in names] == ["local"] * 5
    assert price_provenance(op("gelu", (1,), approximate="tanh"), resolve_protocol("semi2k")) == "fitted"
    assert price_provenance(op("add", (1,), (1,)), resolve_protocol("semi2k")) == "local"
    assert price_provenance(op("relu", (1,)), resolve_protocol("crypten")) == "derived"


def test_unknown_offline_bytes_are_not_taken_for_none() -> None:
    offline_known = {name: resolve_protocol(name).has_offline_figures for name in ("sigma", "aby3", "semi2k")}
    assert offline_known == {"sigma": True, "aby3": True, "semi2k": False}
    assert "offline bytes: not stated by its sources" in invoke("protocols", "semi2k").stdout


def test_the_listing_has_every_protocol_and_operation() -> None:
    shown = invoke("protocols").stdout
    assert all(name in shown for name in protocol_names())
    record = json.loads(invoke("protocols", "--format", "json").stdout)
    assert [entry["name"] for entry in record] == protocol_names()
    assert all(set(entry["coverage"]) == set(VOCABULARY) - STRUCTURAL for entry in record)
    tidy = invoke("protocols", "--format", "csv").stdout.splitlines()
    assert len(tidy) == 1 + len(protocol_names()) * len(VOCABULARY.keys() - STRUCTURAL)


def test_one_protocol_is_shown_with_its_sources() -> None:
    packed = invoke("protocols", "crypten_plus").stdout
    assert "125.75 B x elements" in packed
    assert "packed_compare.py" in packed
    assert "5.523 MB x mn / 98,304" in invoke("protocols", "mpspdz_rep3").stdout
    assert "kernel kogge-stone" in invoke("protocols", "crypten", "--format", "markdown").stdout


def test_the_listing_needs_no_torch() -> None:
    code = "import sys; from pi_sim.cli import main; main(['protocols'], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


class Logarithmic:
    """A plugin: a price that no sheet can state."""

    name, title, threat_model, source, parties = "logarithmic", "A plugin", "nobody", "here", 2

    def price(self, op: Op) -> Cost:
        if op.name == "relu":
            return Cost.symmetric(len(bin(op.shapes[0][0])), 8, 0)
        if op.name == "tanh":
            raise ValueError("oh")
        if op.name == "erf":
            return None
        raise UnpricedError(f"protocol logarithmic has no price for {op.name}.")


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points as packages would install them: a class, one without prices, and one that does not import."""

    def broken() -> None:
        raise ImportError("no module named nothing")

    offered = {"logarithmic": lambda: Logarithmic, "empty": lambda: SimpleNamespace(name="empty"), "broken": broken}
    points = [SimpleNamespace(name=name, value=f"there:{name}", load=load) for name, load in offered.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "pi_sim.protocols" else [])


@pytest.mark.usefixtures("plugged")
def test_a_plugin_is_a_protocol() -> None:
    plugin = resolve_protocol("logarithmic")
    assert price_op(op("relu", (8,)), plugin).cost == Cost.symmetric(6, 8, 0)
    assert price_op(op("view", (8,), shape=(2, 4)), plugin).cost == ZERO_COST
    assert price_provenance(op("relu", (8,)), plugin) == "plugin"
    assert "logarithmic" in protocol_names()
    for name, sentence in (("gelu", "no price for gelu"), ("tanh", "fails at tanh"), ("erf", "is no Cost")):
        with pytest.raises(UsageError, match=sentence):
            price_op(op(name, (8,)), plugin)


@pytest.mark.usefixtures("plugged")
def test_a_model_is_estimated_with_a_plugin() -> None:
    result = invoke("estimate", "--seq-len", "4", "--protocol", "logarithmic")
    assert result.exit_code == 2
    assert "no price for embedding" in result.stderr
    assert "the plugin logarithmic" in result.stderr


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(("name", "sentence"), [("empty", "has no title"), ("broken", "cannot be loaded: no module")])
def test_a_broken_plugin_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        resolve_protocol(name)


@pytest.mark.usefixtures("plugged")
def test_a_toml_file_goes_before_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Logarithmic, "name", "semi2k")
    assert isinstance(resolve_protocol("semi2k"), specs.DeclaredProtocol)


def paths(table: dict[str, Any], parent: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of a table and its subtables."""
    for key, value in table.items():
        yield (*parent, key)
        if isinstance(value, dict):
            yield from paths(value, (*parent, key))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_key_of_every_file_is_found_on_its_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for key in paths(tomllib.loads(text)):
        if key not in (("price",), ("validate",)):
            line = toml_line(text, key)
            assert line is not None
            assert key[-1] in text.splitlines()[line - 1]
