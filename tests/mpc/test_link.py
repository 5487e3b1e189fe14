"""The link: messages of any size arrive in order and in step, and are counted."""

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
    """Yield both ends of a connection over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=20)
        server = listener.accept()[0]
    server.settimeout(20)
    network = parse_network(imitated) if imitated else None
    ends = [Link(server, 0, network), Link(client, 1, network)]
    yield ends
    for end in ends:
        end.close()


def share(rank: int, step: int, size: int) -> Tensor:
    return torch.arange(size, dtype=torch.long) * (3 + rank) + step


@settings(max_examples=15)
@given(steps=STEPS)
def test_opening_returns_the_shared_value(steps: list[tuple[str, int]]) -> None:
    def open_all(end: Link) -> list[Tensor | None]:
        return [opening(end, kind, share(end.rank, step, size)) for step, (kind, size) in enumerate(steps)]

    with links() as ends:
        results = at_both_ends(ends, open_all)
        counters = [(end.rounds, end.sent, end.received) for end in ends]
    for step, (kind, size) in enumerate(steps):
        shares = share(0, step, size), share(1, step, size)
        expected = shares[0] ^ shares[1] if kind == "xor" else shares[0] + shares[1]
        for rank, values in enumerate(results):
            value = values[step]
            assert value is None if kind.startswith("to") and not is_for(rank, kind) else torch.equal(value, expected)
    assert counters[0][0] == counters[1][0] == len(steps)
    assert counters[0][1:] == counters[1][:0:-1]
    assert counters[0][1] == WORD_BYTES * sum(size for kind, size in steps if kind != "to the server")


def is_for(rank: int, kind: str) -> bool:
    return kind == ("to the server", "to the client")[rank]


def opening(end: Link, kind: str, own_share: Tensor) -> Tensor | None:
    if kind.startswith("to"):
        return end.reduce(own_share, 1 if is_for(1, kind) else 0)
    return end.all_reduce(own_share, op=ReduceOp.BXOR if kind == "xor" else ReduceOp.SUM)


def test_a_batch_is_one_message() -> None:
    def open_batch(end: Link) -> list[Tensor]:
        batch = [torch.full((2, 3), end.rank), torch.full((3, 2), 10 * end.rank).T]
        return end.all_reduce(batch, batched=True)

    with links() as ends:
        for first, second in at_both_ends(ends, open_batch):
            assert torch.equal(first, torch.ones(2, 3, dtype=torch.long))
            assert torch.equal(second, torch.full((2, 3), 10))
        assert [(end.rounds, end.sent) for end in ends] == [(1, 96), (1, 96)]


def test_the_connections_own_overhead_is_measured_without_the_imitated_network() -> None:
    with links(imitated="rtt=10s,bw=1kbps") as ends:
        for speed in at_both_ends(ends, benchmark_link):
            assert isinstance(speed, dict)
            assert 0 < speed["round_seconds"] < 1  # the imitated latency is 5 seconds
            assert speed["megabyte_seconds"] < 10  # and a megabyte would take hours
        assert all(end.network for end in ends)
