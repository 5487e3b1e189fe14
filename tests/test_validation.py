"""Prices against the published record: what must agree does, what does not says why, and nothing can be slipped in."""

import csv
import io
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_sim import specs
from pi_sim.network import PRESETS
from pi_sim.report.published_figures import UNEXPLAINED, render_validations
from pi_sim.specs.protocols import Claim, Publication
from pi_sim.validation import Comparison, Validation, price_claim, validate_publication
from tests.helpers.cli import invoke, refused

SOURCES = specs.list_names("protocols/published")
CRYPTEN = Path("protocols/published/crypten.toml").read_text(encoding="utf-8")
BOLT = Path("protocols/published/bolt.toml").read_text(encoding="utf-8")

PROMISED = {"crypten": 0.0001, "shaft": 0.003, "sigma": 0.005, "puma": 0.1, "spu": 0.08, "mpspdz": 0.01}
"""How large an error in bytes a source may tolerate at most: nobody meets a check by loosening it."""

validate = cache(validate_publication)


def publication(name: str) -> Publication:
    return specs.read_toml(Publication, specs.find_file("protocols/published", name))


def checked(validation: Validation) -> list[Comparison]:
    return [comparison for comparison in validation.comparisons if comparison.claim.role == "check"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_every_check_is_met_or_says_why_not(name: str) -> None:
    for comparison in checked(validate(name)):
        assert comparison.verdict != "missed" or comparison.claim.reason, (
            f"{comparison.claim.name}: {comparison.quantity} {comparison.error:+.2%}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_a_sheet_holds_the_figures_that_it_was_made_from(name: str) -> None:
    for comparison in validate(name).comparisons:
        assert comparison.claim.role == "check" or comparison.verdict != "missed", (
            f"{comparison.claim.name}: {comparison.error:+.2%}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_a_reason_stands_where_something_is_off_and_nowhere_else(name: str) -> None:
    compared = validate(name).comparisons
    missed = {comparison.claim.name for comparison in compared if comparison.verdict == "missed"}
    off = {comparison.claim.name for comparison in compared if abs(comparison.error) > UNEXPLAINED}
    assert missed <= {claim.name for claim in publication(name).row if claim.reason} <= missed | off


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_what_was_fitted_is_told_from_what_is_checked(name: str) -> None:
    """No subject is both: a figure that made a price cannot test it. Seconds alone share one fitted number."""
    fitted = {_subject(claim) for claim in publication(name).row if claim.role == "fit" and claim.seconds is None}
    assert not fitted & {_subject(claim) for claim in publication(name).row if claim.role == "check"}
    derived = [comparison for comparison in validate(name).comparisons if comparison.provenance == "derived"]
    assert all(comparison.claim.role == "check" for comparison in derived)


def _subject(claim: Claim) -> str:
    return claim.model_dump_json(include={"protocol", "ops", "model"})


@pytest.mark.parametrize(("name", "most"), PROMISED.items())
def test_no_check_is_loosened(name: str, most: float) -> None:
    for claim in publication(name).row:
        assert claim.tolerance.bytes <= most
        assert claim.tolerance.rounds == 0


@pytest.mark.slow
def test_crypten_costs_what_its_counters_say() -> None:
    """Derived prices: rounds to the digit, bytes as far as they were printed."""
    comparisons = validate("crypten").comparisons
    assert {comparison.provenance for comparison in comparisons} == {"derived"}
    assert all(comparison.verdict == "exact" for comparison in comparisons if comparison.quantity == "rounds")
    assert validate("crypten").count_verdicts("missed") == 0


@pytest.mark.slow
def test_sums_over_both_parties_are_twice_what_one_sends(tmp_path: Path) -> None:
    one = falsified(tmp_path, CRYPTEN, 'counted = "both parties"', 'counted = "one party"').comparisons
    for single, both in zip(one, validate("crypten").comparisons, strict=True):
        assert both.predicted == (2 if both.quantity == "bytes" else 1) * single.predicted


def falsified(folder: Path, text: str, old: str, new: str) -> Validation:
    assert old in text
    path = folder / "mine.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return validate_publication(str(path))


@pytest.mark.slow
def test_a_falsified_figure_is_missed(tmp_path: Path) -> None:
    comparisons = falsified(tmp_path, CRYPTEN, "bytes = 464", "bytes = 465").comparisons
    assert [comparison.claim.name for comparison in comparisons if comparison.verdict == "missed"] == ["ReLU"]
    comparisons = falsified(tmp_path, CRYPTEN, "rounds = 34", "rounds = 33").comparisons
    assert [
        (comparison.claim.name, comparison.quantity) for comparison in comparisons if comparison.verdict == "missed"
    ] == [("erf by Taylor series", "rounds")]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("bytes = 464", "bites = 464", "row.3.bites"),
        ("bytes = 464", "bytes = -464", "row.3.bytes"),
        ("bytes = 464", 'bytes = 464\nunit = "furlongs"', "row.3.unit"),
        ("bytes = 464", 'bytes = 464\nrole = "guess"', "row.3.role"),
        ("bytes = 464", "bytes = 464\nseconds = 3", "seconds need a network"),
        ('ops = [{ op = "relu", shapes = [[1]] }]\nrounds', "rounds", "needs ops or a model"),
        ('name = "ReLU"', 'name = "square"', "two rows are called 'square'"),
        ('op = "relu"', 'op = "magic"', "row 'ReLU': there is no operation 'magic'"),
        ('protocol = "crypten"', 'protocol = "magic"', "row 'opening': unknown protocol 'magic'"),
        ('protocol = "crypten"', 'protocol = "delphi"', "'product': ops: protocol delphi has no price for multiply"),
        ('source = "one element"\n', "", "source"),
        ("[every]", "[every", "is not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_file(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    assert old in CRYPTEN
    path = tmp_path / "mine.toml"
    path.write_text(CRYPTEN.replace(old, new), encoding="utf-8")
    message = refused(invoke("validate", str(path)))
    assert str(path) in message
    assert sentence in message


def test_an_unknown_source_is_named() -> None:
    assert "unknown published source 'moon'; known: aero, bolt" in refused(invoke("validate", "moon"))


@pytest.mark.slow
def test_seconds_are_the_networks_and_one_fitted_number() -> None:
    claims = [claim for claim in publication("bolt").row if claim.seconds is not None]
    comparisons = [comparison for comparison in validate("bolt").comparisons if comparison.quantity == "seconds"]
    assert len({comparison.compute_seconds for comparison in comparisons}) == 1
    for claim, comparison in zip(claims, comparisons, strict=True):
        cost, link = price_claim(claim).cost, PRESETS[claim.network or ""]
        assert comparison.predicted == pytest.approx(
            (comparison.compute_seconds or 0) + link.seconds(cost.rounds, cost.bytes)
        )


@pytest.mark.slow
def test_seconds_without_a_fitted_row_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(BOLT.replace('role = "fit"\nunit = "GB"', 'unit = "GB"'), encoding="utf-8")
    assert "no row of the same model and protocol has role fit and seconds" in refused(invoke("validate", str(path)))


@given(printed=st.integers(1, 10**7), decimals=st.integers(0, 3), off=st.floats(-0.4, 0.4))
def test_exact_is_to_the_digits_that_were_printed(printed: int, decimals: int, off: float) -> None:
    published = printed / 10**decimals
    claim = Claim(
        name="x", source="x", protocol="x", counted="one party", ops=({"op": "relu", "shapes": ((1,),)},), bytes=1
    )
    unit = 10.0 ** -Comparison(claim, "bytes", published, 0, "").decimals
    assert Comparison(claim, "bytes", published, published + off * unit, "").verdict == "exact"
    assert Comparison(claim, "bytes", published, published + (1 + off) * unit, "").verdict != "exact"


def test_programs_get_every_row() -> None:
    sources = json.loads(invoke("validate", "nimbus", "crypten", "--format", "json").stdout)
    assert [source["source"] for source in sources] == ["nimbus", "crypten"]
    rows = [row for source in sources for row in source["rows"]]
    assert set(rows[0]) >= {"row", "published", "ours", "error", "provenance", "role", "verdict", "reason", "counted"}
    tidy = csv.DictReader(io.StringIO(invoke("validate", "nimbus", "crypten", "--format", "csv").stdout))
    assert [(row["row"], row["verdict"]) for row in tidy] == [(row["row"], row["verdict"]) for row in rows]


@pytest.mark.slow
def test_the_committed_page_is_what_the_command_prints() -> None:
    printed = render_validations([validate(name) for name in SOURCES], "markdown") + "\n"
    assert printed == Path("reports/validation.md").read_text(encoding="utf-8")
    assert Path("reports/figures/validation.svg").is_file()


def test_a_page_is_written_with_its_figure(tmp_path: Path) -> None:
    written = invoke("validate", "nimbus", "--out", str(tmp_path)).stdout.splitlines()
    assert written == [str(tmp_path / "figures" / "validation.svg"), str(tmp_path / "validation.md")]
    assert Path(written[1]).read_text(encoding="utf-8") == invoke("validate", "nimbus", "--format", "markdown").stdout
    assert Path(written[0]).read_text(encoding="utf-8").startswith("<?xml")
