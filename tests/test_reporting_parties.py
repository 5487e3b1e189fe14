"""What each of two machines shows of a run, and what a run says of its link."""

from typing import Any

import pytest
from handmade import run_record
from test_reporting import golden

from pi_sim.reporting import parties, runs

pytestmark = pytest.mark.usefixtures("no_terminal")
LINK = {"round_seconds": 0.000085, "megabyte_seconds": 0.00121}


def record(rank: int, **changes: Any) -> dict[str, Any]:
    """What a party would have recorded; the server knows no perplexity."""
    whole = run_record(rank=rank, encrypted=True, dealer="first-party", agreement=None, **changes)
    whole["measured"] |= {"link": LINK, "peer_wait_seconds": None}
    whole["perplexity"] = {"plain": None, "private": 21.02} if rank else None
    return whole


@pytest.mark.parametrize("rank", [0, 1])
def test_a_party_in_a_screenful(rank: int) -> None:
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
