"""What two machines tell each other after a run: counters that can be read, and that are not believed blindly."""

import json
import threading
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from strangers import meeting
from test_run import NOTHING, outcome

from pi_sim.errors import RunError
from pi_sim.mpc import wire
from pi_sim.mpc.party import Played
from pi_sim.mpc.rendezvous import Plain
from pi_sim.run.audit import check
from pi_sim.run.counters import exchange
from pi_sim.run.remote import _counted

SESSION = {**NOTHING, "offline": 0, "asked": 0, "seconds": 0.5}


@cache
def played(rank: int, **falsified: int) -> tuple[Any, Any, Played]:
    """What a party of a faithful run tells, or of a falsified one."""
    graph, protocol, found = outcome(rank, **falsified)
    return graph, protocol, Played({}, SESSION, found.counts[rank], None, (0, 0))


def test_both_parties_audit_the_same() -> None:
    graph, protocol, server = played(0)
    client = played(1)[2]
    told: list[Any] = []
    with meeting(Plain(), Plain()) as (ours, theirs):
        other = threading.Thread(target=lambda: told.append(exchange(theirs, 1, client, len(graph.nodes))))
        other.start()
        heard = exchange(ours, 0, server, len(graph.nodes))
        other.join()
    check(graph, protocol, _counted(0, server, heard, 0.0))
    check(graph, protocol, _counted(1, client, told[0], 0.0))


def test_a_party_that_counted_something_else_is_found_out() -> None:
    graph, protocol, server = played(0)
    falsified = played(1, sent=8, crypten_bytes=8)[2]
    heard = hear(json.dumps({"session": SESSION, "sequences": falsified.sequences}).encode(), server)
    with pytest.raises(RunError, match=r"party 1 sent [0-9]+ bytes, and [0-9]+ arrived"):
        check(graph, protocol, _counted(0, server, heard, 0.0))


def hear(text: bytes, mine: Played) -> Any:
    """What the server makes of that text."""
    with meeting(Plain(), Plain()) as (ours, theirs):
        wire.send_text(theirs, text)
        return exchange(ours, 0, mine, len(mine.sequences[0]["nodes"]))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff\xfe", b"[]", b"{}", b"null", b'{"session": {}, "sequences": []}', b"[" * 100_000,
        json.dumps({"session": {**SESSION, "sent": "many"}, "sequences": []}).encode(),
        json.dumps({"session": SESSION, "sequences": [{**SESSION, "nodes": [[1]]}]}).encode(),
        json.dumps({"session": {**SESSION, "sent": float("inf")}, "sequences": []}).encode(),
    ],
)  # fmt: skip
def test_nonsense_is_one_sentence(text: bytes) -> None:
    with pytest.raises(RunError, match="the other party's counters cannot be read"):
        hear(text, played(0)[2])


def test_counters_of_something_else_are_one_sentence() -> None:
    server = played(0)[2]
    for sequences in ([], server.sequences * 2, [{**server.sequences[0], "nodes": server.sequences[0]["nodes"][:-1]}]):
        other = replace(server, sequences=sequences)
        text = json.dumps({"session": SESSION, "sequences": other.sequences}).encode()
        with pytest.raises(RunError, match="counted other sequences or nodes"):
            hear(text, server)
