"""The link: whatever two parties open, in whatever sizes, arrives in order, in step and counted."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed import ReduceOp

from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.mpc.transport.link import SMALL_MESSAGE_BYTES, Link, benchmark_link
from pi_sim.network import parse_network
from tests.helpers.two_threads import at_both_ends

pytestmark = pytest.mark.parties

SIZES = st.sampled_from([0, 1, 100, SMALL_MESSAGE_BYTES // WORD_BYTES, SMALL_MESSAGE_BYTES // WORD_BYTES + 1, 50_000])
STEPS = st.lists(st.tuples(st.sampled_from(["sum", "xor", "to the client", "to the server"]), SIZES), max_size=12)


@contextmanager
def links(imitated: str | None = None) -> Iterator[list[Link]]:
    """Both ends of a connection over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=20)
        server = listener.accept()[0]
    server.settimeout(20)
    chosen = parse_network(imitated) if imitated else None
    ends = [Link(server, 0, chosen), Link(client, 1, chosen)]
    yield ends
    for end in ends:
        end.close()


def share(rank: int, step: int, size: int) -> Tensor:
    return torch.arange(size, dtype=torch.long) * (3 + rank) + step


@settings(max_examples=15)
@given(steps=STEPS)
def test_what_is_opened_is_what_was_shared(steps: list[tuple[str, int]]) -> None:
    def play(end: Link) -> list[Tensor | None]:
        return [opening(end, kind, share(end.rank, step, size)) for step, (kind, size) in enumerate(steps)]

    with links() as ends:
        found = at_both_ends(ends, play)
        counted = [(end.rounds, end.sent, end.received) for end in ends]
    for step, (kind, size) in enumerate(steps):
        one, other = share(0, step, size), share(1, step, size)
        expected = one ^ other if kind == "xor" else one + other
        for rank, results in enumerate(found):
            opened = results[step]
            assert opened is None if kind.startswith("to") and not is_for(rank, kind) else torch.equal(opened, expected)
    assert counted[0][0] == counted[1][0] == len(steps)
    assert counted[0][1:] == counted[1][:0:-1]
    assert counted[0][1] == WORD_BYTES * sum(size for kind, size in steps if kind != "to the server")


def is_for(rank: int, kind: str) -> bool:
    return kind == ("to the server", "to the client")[rank]


def opening(end: Link, kind: str, mine: Tensor) -> Tensor | None:
    if kind.startswith("to"):
        return end.reduce(mine, 1 if is_for(1, kind) else 0)
    return end.all_reduce(mine, op=ReduceOp.BXOR if kind == "xor" else ReduceOp.SUM)


def test_a_batch_is_one_message() -> None:
    def play(end: Link) -> list[Tensor]:
        batch = [torch.full((2, 3), end.rank), torch.full((3, 2), 10 * end.rank).T]
        return end.all_reduce(batch, batched=True)

    with links() as ends:
        for one, other in at_both_ends(ends, play):
            assert torch.equal(one, torch.ones(2, 3, dtype=torch.long))
            assert torch.equal(other, torch.full((2, 3), 10))
        assert [(end.rounds, end.sent) for end in ends] == [(1, 96), (1, 96)]


def test_the_connections_own_overhead_is_measured_without_the_imitated_network() -> None:
    with links(imitated="rtt=10s,bw=1kbps") as ends:
        for found in at_both_ends(ends, benchmark_link):
            assert isinstance(found, dict)
            assert 0 < found["round_seconds"] < 1  # the imitated latency is 5 seconds
            assert found["megabyte_seconds"] < 10  # and a megabyte would take hours
        assert all(end.network for end in ends)
