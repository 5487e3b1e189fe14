"""Tables that the terminal shows: text is compared with tests/golden exactly."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from pi_sim.reporting import parties, runs, tables, units
from pi_sim.reporting.estimates import render
from pi_sim.reporting.runs import summary
from pi_sim.reporting.tables import Column, Table

from tests.helpers.golden import Golden
from tests.helpers.sample_records import estimate, run_record

pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.mark.parametrize("style", ["table", "markdown", "csv"])
def test_an_estimate_by_operation(style: Any, golden: Golden) -> None:
    golden(f"estimate-op-{style}", render([estimate()], "op", style))


@pytest.mark.parametrize("view", ["layer", "module", "total"])
def test_an_estimate_by_place(view: Any, golden: Golden) -> None:
    golden(f"estimate-{view}-table", render([estimate()], view, "table"))


def test_several_estimates_follow_one_another(golden: Golden) -> None:
    both = [estimate(protocol=protocol) for protocol in ("crypten", "crypten_tanh")]
    golden("estimates-total-table", render(both, "total", "table"))
    golden("estimates-total-csv", render(both, "total", "csv"))


def test_json_is_one_object_or_a_list() -> None:
    record = json.loads(render([estimate()], "op", "json"))
    assert {key: record[key] for key in estimate().to_json()} == estimate().to_json()
    assert record["kind"] == "estimate"
    assert json.loads(render([estimate(), estimate()], "op", "json")) == [record] * 2


def test_csv_leaves_nothing_out() -> None:
    """Sums of the raw numbers are the totals."""
    header, *lines = (line.split(",") for line in render([estimate()], "module", "csv").splitlines())
    assert len(lines) == len({row.module for row in estimate().rows})
    assert sum(int(line[header.index("bytes")]) for line in lines) == estimate().total.bytes


@pytest.mark.parametrize(("columns", "folded"), [(200, False), (70, True), (20, True)])
def test_a_narrow_terminal_cuts_no_number(columns: int, folded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    table = Table([Column("a", "a"), *(Column("b", "b", units.COUNT) for _ in range(3))], [["x" * 60, *[10**9] * 3]])
    drawn = tables.render(table, "table")
    assert drawn.count("1,000,000,000") == 3
    assert ("x" * 60 not in drawn) == folded


@pytest.mark.parametrize(
    ("value", "text"),
    [(24.684, "24.68"), (3.2e17, "3.2e+17"), (None, "beyond all numbers"), (math.nan, "not a number")],
)
def test_any_perplexity_can_be_told(value: float | None, text: str) -> None:
    assert units.perplexity(value) == text


def test_what_would_round_to_nothing_is_not_nothing() -> None:
    assert units.BYTES[1].show(1) == "<0.01"
    assert units.BYTES[1].show(0) == "0.00"


def test_a_run_in_a_screenful(golden: Golden) -> None:
    golden("run", summary(run_record()))


def test_a_run_without_a_plain_model_or_a_network(golden: Golden) -> None:
    found = {"plain": None, "private": None}
    golden("run-of-a-bundle", summary(run_record(network="none", perplexity=found, agreement=None)))


def test_an_estimate_is_rendered_without_torch_or_pandas() -> None:
    modules = "pi_sim.reporting.estimates, pi_sim.reporting.runs"
    check = f"import sys, {modules}; print(sorted({{'torch', 'pandas', 'matplotlib'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


LINK = {"round_seconds": 0.000085, "megabyte_seconds": 0.00121}


def record(rank: int, **changes: Any) -> dict[str, Any]:
    """What a party would have recorded; the server knows no perplexity."""
    whole = run_record(rank=rank, encrypted=True, dealer="first-party", agreement=None, **changes)
    whole["measured"] |= {"link": LINK, "peer_wait_seconds": None}
    whole["perplexity"] = {"plain": None, "private": 21.02} if rank else None
    return whole


@pytest.mark.parametrize("rank", [0, 1])
def test_a_party_in_a_screenful(rank: int, golden: Golden) -> None:
    golden(f"run-of-party-{rank}", parties.summary(record(rank)))


def test_what_was_not_encrypted_is_said() -> None:
    assert parties.UNENCRYPTED not in parties.summary(record(0))
    assert parties.summary({**record(0), "encrypted": False}).endswith(parties.UNENCRYPTED)


def test_the_dealers_sentence_is_that_of_its_kind() -> None:
    assert "the server was the dealer" in parties.summary(record(1))
    assert "the server was the dealer" not in parties.summary({**record(1), "dealer": "file"})


def test_an_imitated_network_shows_the_links_own_overhead() -> None:
    whole = run_record()
    assert "each way" not in runs.summary(whole)
    whole["measured"] |= {"link": LINK, "late_seconds": 0.0123}
    assert "0.085 ms a round and 1.21 ms a MB each way by itself; messages came 12.3 ms late" in runs.summary(whole)
