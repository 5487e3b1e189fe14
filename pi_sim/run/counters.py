"""Two machines' counters laid beside each other, after the run and outside of what is counted."""

import json
from typing import Any

from pi_sim.errors import RunError
from pi_sim.mpc import wire
from pi_sim.mpc.party import Counters, PartyResult

COUNTER_NAMES = ("rounds", "sent", "received", "crypten_rounds", "crypten_bytes", "offline", "asked")
MAX_COUNTERS_BYTES = 2**26
"""Bytes of all counters of a long run, and far more than that."""


def exchange_counters(connection: wire.Connection, rank: int, mine: PartyResult, nodes: int) -> tuple[Counters, list[Counters]]:
    """What the other party counted in its session and in each sequence, up to each of so many nodes.

    The server tells first, so that neither has to send while the other does.
    """
    text = json.dumps({"session": mine.session, "sequences": mine.sequences}).encode()
    if rank == 0:
        wire.send_text(connection, text)
    theirs = wire.receive_text(connection, MAX_COUNTERS_BYTES)
    if rank == 1:
        wire.send_text(connection, text)
    return _parse_peer_counters(theirs, len(mine.sequences), nodes)


def _parse_peer_counters(text: bytes, sequences: int, nodes: int) -> tuple[Counters, list[Counters]]:
    try:
        told = json.loads(text)
        session, each = _counter_values(told["session"]), [_counter_values(one) for one in told["sequences"]]
        reached = [[(int(rounds), int(sent)) for rounds, sent in one["nodes"]] for one in told["sequences"]]
    except Exception:  # whatever nonsense leads to
        raise RunError("the other party's counters cannot be read; is it another version of pi-sim?") from None
    if [len(one) for one in reached] != [nodes] * sequences:
        raise RunError("the other party counted other sequences or nodes than this one.")
    return session, [{**one, "nodes": points} for one, points in zip(each, reached, strict=True)]


def _counter_values(told: dict[str, Any]) -> Counters:
    return {name: int(told[name]) for name in COUNTER_NAMES}
