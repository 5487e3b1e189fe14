"""The audit of predicted and measured counters, of one run and between two machines that exchange them."""

import json
import threading
from functools import cache
from typing import Any

import pytest

from pi_sim import specs
from pi_sim.cost.cost import Cost
from pi_sim.cost.pricing import price_op
from pi_sim.errors import RunError
from pi_sim.graph.capture import capture_model
from pi_sim.inference.checks import audit_run
from pi_sim.inference.remote import _pair_counters, exchange_counters
from pi_sim.mpc.launch import PartyCounters
from pi_sim.mpc.party import PartyResult
from pi_sim.mpc.transport.connection import PlainTransport, send_text
from pi_sim.zoo.source import ModelSource
from tests.helpers.rendezvous_server import connected_pair

NOTHING = dict.fromkeys(("rounds", "sent", "received", "crypten_rounds", "crypten_bytes"), 0)
"""Counters of a session: stock kernels open no weights beforehand."""


def outcome(rank: int = 0, **falsified: int) -> tuple[Any, Any, PartyCounters]:
    """Return the counters of a small graph as predicted, one party's falsified; `node` is its last node's bytes."""
    graph, protocol = (
        capture_model(ModelSource.parse("relu_nonorm", "tiny").meta(), 4),
        specs.load_executable_protocol("crypten"),
    )
    reached, nodes = Cost(), []
    for node in graph.nodes:
        reached += price_op(node.op, protocol).cost
        nodes.append((reached.rounds, reached.sent))
    both = [
        {
            "rounds": reached.rounds, "sent": reached.sent[party], "received": reached.sent[1 - party],
            "offline": reached.offline, "requested": reached.offline,
            "crypten_rounds": reached.rounds, "crypten_bytes": sum(reached.sent),
            "ahead": {**NOTHING, "offline": 0, "requested": 0, "seconds": 0.0},
            "nodes": [(rounds, sent[party]) for rounds, sent in nodes],
        }
        for party in (0, 1)
    ]  # fmt: skip
    nodes = list(both[rank]["nodes"])
    both[rank]["nodes"][-1] = (nodes[-1][0] + falsified.pop("round", 0), nodes[-1][1] + falsified.pop("node", 0))
    for name, error in falsified.items():
        both[rank][name] += error
    return [graph], protocol, PartyCounters([[counters] for counters in both], [NOTHING, NOTHING], 0.0, {})


def test_equal_counters_pass() -> None:
    audit_run(*outcome())


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("falsified", "sentence"),
    [
        ({"round": 1}, r"differ at reveal\(1x4x2048\) in output"),
        ({"node": 8}, r"differ at reveal\(1x4x2048\) in output"),
        ({"received": 8, "crypten_bytes": 8}, "sent [0-9]+ bytes, and [0-9]+ arrived"),
        ({"crypten_bytes": 8}, "CrypTen counted"),
        ({"crypten_rounds": 1}, "CrypTen counted"),
        ({"rounds": 1}, "CrypTen counted"),
        ({"offline": 8}, "requested [0-9]+, received [0-9]+"),
        ({"requested": 8}, "requested [0-9]+, received [0-9]+"),
    ],
)
def test_differing_counters_are_a_failure(rank: int, falsified: dict[str, int], sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        audit_run(*outcome(rank, **falsified))


SESSION = {**NOTHING, "offline": 0, "requested": 0, "seconds": 0.5}


@cache
def party_result(rank: int, **falsified: int) -> tuple[Any, Any, PartyResult]:
    """Return one party's result, with counters as predicted or falsified."""
    graphs, protocol, counters = outcome(rank, **falsified)
    return graphs, protocol, PartyResult({}, SESSION, counters.counts[rank], None, (0, 0))


@pytest.mark.parties
def test_both_parties_audit_the_same() -> None:
    graphs, protocol, server = party_result(0)
    client = party_result(1)[2]
    received: list[Any] = []
    with connected_pair(PlainTransport(), PlainTransport()) as (server_end, client_end):
        nodes = [len(graph.nodes) for graph in graphs]
        peer = threading.Thread(target=lambda: received.append(exchange_counters(client_end, 1, client, nodes)))
        peer.start()
        reply = exchange_counters(server_end, 0, server, nodes)
        peer.join()
    audit_run(graphs, protocol, _pair_counters(0, server, reply, 0.0))
    audit_run(graphs, protocol, _pair_counters(1, client, received[0], 0.0))


@pytest.mark.parties
def test_a_party_with_other_counters_is_a_failure() -> None:
    graphs, protocol, server = party_result(0)
    falsified = party_result(1, sent=8, crypten_bytes=8)[2]
    reply = receive(json.dumps({"session": SESSION, "sequences": falsified.sequences}).encode(), server)
    with pytest.raises(RunError, match=r"party 1 sent [0-9]+ bytes, and [0-9]+ arrived"):
        audit_run(graphs, protocol, _pair_counters(0, server, reply, 0.0))


def receive(text: bytes, result: PartyResult) -> Any:
    """Return the counters that the server reads from a text."""
    with connected_pair(PlainTransport(), PlainTransport()) as (server_end, client_end):
        send_text(client_end, text)
        return exchange_counters(server_end, 0, result, [len(result.sequences[0]["nodes"])])


@pytest.mark.parties
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
        receive(text, party_result(0)[2])


@pytest.mark.parties
def test_counters_of_something_else_are_one_sentence() -> None:
    server = party_result(0)[2]
    for sequences in ([], server.sequences * 2, [{**server.sequences[0], "nodes": server.sequences[0]["nodes"][:-1]}]):
        text = json.dumps({"session": SESSION, "sequences": sequences}).encode()
        with pytest.raises(RunError, match="counted other sequences or nodes"):
            receive(text, server)
