"""Tables that the terminal shows: text is compared with tests/golden exactly."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from pi_sim.records import PartyRecord, RunRecord
from pi_sim.report import tables
from pi_sim.report.estimates import render_estimates
from pi_sim.report.tables import BYTES, COUNT, Column, Table, format_perplexity, tabulate, unwrap
from pi_sim.report.terminal import summarize_run
from tests.helpers.golden import Golden
from tests.helpers.sample_records import estimate, run_record

pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.mark.parametrize("style", ["table", "markdown", "csv"])
def test_an_estimate_by_operation(style: Any, golden: Golden) -> None:
    golden(f"estimate-op-{style}", render_estimates([estimate()], "op", style))


@pytest.mark.parametrize("view", ["layer", "module", "total"])
def test_an_estimate_by_module(view: Any, golden: Golden) -> None:
    golden(f"estimate-{view}-table", render_estimates([estimate()], view, "table"))


def test_shares_are_columns_on_request(golden: Golden) -> None:
    golden("estimate-shares-table", render_estimates([estimate()], "op", "table", shares=True))


def test_several_estimates_follow_one_another(golden: Golden) -> None:
    both = [estimate(protocol=protocol) for protocol in ("crypten", "crypten_tanh")]
    golden("estimates-total-table", render_estimates(both, "total", "table"))
    golden("estimates-total-csv", render_estimates(both, "total", "csv"))


def test_json_is_one_object_or_a_list() -> None:
    record = json.loads(render_estimates([estimate()], "op", "json"))
    assert {key: record[key] for key in estimate().to_json()} == estimate().to_json()
    assert record["kind"] == "estimate"
    assert json.loads(render_estimates([estimate(), estimate()], "op", "json")) == [record] * 2


def test_csv_leaves_nothing_out() -> None:
    """Sums of the raw numbers are the totals."""
    header, *lines = (line.split(",") for line in render_estimates([estimate()], "module", "csv").splitlines())
    assert len(lines) == len({row.module for row in estimate().rows})
    assert sum(int(line[header.index("bytes")]) for line in lines) == estimate().total.bytes


@pytest.mark.parametrize(("columns", "folded"), [(200, False), (70, True), (20, True)])
def test_a_narrow_terminal_cuts_no_number(columns: int, folded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    table = Table([Column("a", "a"), *(Column("b", "b", COUNT) for _ in range(3))], [["x" * 60, *[10**9] * 3]])
    drawn = tables.render(table, "table")
    assert drawn.count("1,000,000,000") == 3
    assert ("x" * 60 not in drawn) == folded


@pytest.mark.parametrize(
    ("value", "text"),
    [(24.684, "24.68"), (3.2e17, "3.2e+17"), (None, "overflow"), (math.nan, "NaN")],
)
def test_every_perplexity_has_a_text(value: float | None, text: str) -> None:
    assert format_perplexity(value) == text


def test_what_would_round_to_nothing_is_not_nothing() -> None:
    assert BYTES[1].show(1) == "<0.01"
    assert BYTES[1].show(0) == "0.00"


def test_a_run_in_a_screenful(golden: Golden) -> None:
    golden("run", summarize_run(run()))


def test_a_run_without_a_plain_model_or_a_network(golden: Golden) -> None:
    unknown = {"plain": None, "private": None}
    golden("run-of-a-bundle", summarize_run(run(network="none", perplexity=unknown, agreement=None)))


def test_an_estimate_is_rendered_without_torch_or_pandas() -> None:
    modules = "pi_sim.report.estimates, pi_sim.report.terminal"
    check = f"import sys, {modules}; print(sorted({{'torch', 'pandas', 'matplotlib'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


LINK = {"round_seconds": 0.000085, "megabyte_seconds": 0.00121}


def run(**changes: Any) -> RunRecord:
    return RunRecord.model_validate(run_record(**changes))


def party(rank: int, **changes: Any) -> PartyRecord:
    """Return the record of a party; the server knows no perplexity."""
    table = run_record(rank=rank, encrypted=True, dealer="first-party", device="cpu", agreement=None)
    table["measured"] |= {"link": LINK}
    table |= {"perplexity": {"private": 21.02} if rank else None, "payload_bytes": {"sent": 1, "received": 1}}
    del table["network"]
    return PartyRecord.model_validate({**table, **changes})


@pytest.mark.parametrize("rank", [0, 1])
def test_a_party_in_a_screenful(rank: int, golden: Golden) -> None:
    golden(f"run-of-party-{rank}", summarize_run(party(rank)))


def test_what_was_not_encrypted_is_said() -> None:
    assert "Nothing was encrypted" not in summarize_run(party(0))
    assert "Nothing was encrypted" in summarize_run(party(0, encrypted=False))


def test_the_dealers_sentence_is_that_of_its_kind() -> None:
    assert "The server was the dealer" in summarize_run(party(1))
    assert "The server was the dealer" not in summarize_run(party(1, dealer="file"))


def test_an_imitated_network_shows_the_links_own_overhead() -> None:
    assert "each way" not in summarize_run(run())
    measured = {**run_record()["measured"], "link": LINK, "late_seconds": 0.0123}
    sentence = "0.085 ms a round and 1.21 ms a MB each way by itself; messages were 12.3 ms late"
    assert sentence in " ".join(summarize_run(run(measured=measured)).split())


def test_corrupted_positions_are_counted() -> None:
    agreement = {"max_abs": 4.3e9, "mean_abs": 1e6, "top1": 0.99, "corrupted_positions": 3}
    perplexity = {"plain": 22.0, "private": 1e9, "excluding_corrupted": {"plain": 21.5, "private": 21.6}}
    text = summarize_run(run(agreement=agreement, perplexity=perplexity))
    sentence = "3 of 256 positions, see protocols/README.md; perplexity elsewhere 21.50 plain, 21.60 private"
    assert sentence in " ".join(text.split())


def test_a_column_that_no_row_has_is_an_error_unless_it_is_optional() -> None:
    rows = [{"a": 1.0}, {"a": None}]
    assert tabulate(rows, {"a": ("a", COUNT), "b": "b"}, optional=["b"], missing="–").rows == [[1.0], ["–"]]
    with pytest.raises(KeyError):
        tabulate(rows, {"b": "b"})


def test_prose_is_unwrapped_and_nothing_else() -> None:
    text = "# Title\n\nOne\n  sentence.\n\n- an item\n  of two lines\n- another\n\n```sh\na\nb\n```\n\n| a |\n| b |"
    assert unwrap(text) == (
        "# Title\n\nOne sentence.\n\n- an item of two lines\n- another\n\n```sh\na\nb\n```\n\n| a |\n| b |"
    )


@pytest.mark.parametrize("changes", [{}, {"network": "none", "agreement": None}])
def test_runs_fit_80_columns(changes: dict[str, Any]) -> None:
    texts = [summarize_run(run(**changes)), *(summarize_run(party(rank, encrypted=False)) for rank in (0, 1))]
    assert max(len(line) for text in texts for line in text.splitlines()) <= 80
