"""The critical path of two parties: every second is the network's, one party's own, or the other's."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.mpc.transport import link
from pi_sim.mpc.transport.link import CriticalPath

LATENCY = 10.0


class Clock:
    """A clock whose time is set by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    fake = Clock()
    monkeypatch.setattr(link, "time", fake)
    yield fake


class Pair:
    """Two parties that exchange messages of one latency, each after a number of seconds of computing."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.ends, self.free = clock, [CriticalPath(True), CriticalPath(True)], [0.0, 0.0]

    def round(self, *computing: float) -> None:
        stamps = []
        for end, free, seconds in zip(self.ends, self.free, computing, strict=True):
            self.clock.now = free + seconds
            stamps.append(end.on_send())
        for rank, (end, stamp) in enumerate(zip(self.ends, reversed(stamps), strict=True)):
            due = stamp[0] + LATENCY
            self.free[rank] = self.clock.now = max(stamps[rank][0], due)
            end.on_receive(stamp, due)


def chains(pair: Pair) -> list[tuple[float, float, float]]:
    return [(end.network + end.delay, end.own_compute, end.peer_compute) for end in pair.ends]


def test_parties_in_step_wait_for_the_network_alone(clock: Clock) -> None:
    pair = Pair(clock)
    for _ in range(5):
        pair.round(1.0, 1.0)
    for network, own, peer in chains(pair):
        assert (network, own + peer) == (5 * LATENCY, 5.0)


def test_a_party_that_is_late_once_shifts_nothing_onto_the_network(clock: Clock) -> None:
    """The other waits for it, then it waits for the other, whose message left late because its own did."""
    pair = Pair(clock)
    pair.round(4.0, 0.0)
    pair.round(0.0, 0.0)
    assert chains(pair) == [(2 * LATENCY, 4.0, 0.0), (2 * LATENCY, 0.0, 0.0)]


def test_computing_of_the_other_party_is_not_the_networks(clock: Clock) -> None:
    pair = Pair(clock)
    pair.round(0.0, 25.0)
    assert chains(pair) == [(LATENCY, 0.0, 25.0), (0.0, 25.0, 0.0)]


def test_a_message_that_travels_while_one_computes_takes_no_time(clock: Clock) -> None:
    pair = Pair(clock)
    for _ in range(3):
        pair.round(100.0, 0.0)
    assert chains(pair)[0] == (0.0, 300.0, 0.0)


@given(rounds=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=20))
def test_every_second_belongs_to_the_network_or_a_party(rounds: list[tuple[float, float]]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link, "time", clock)
        pair = Pair(clock)
        for computing in rounds:
            pair.round(*computing)
    for free, chain in zip(pair.free, chains(pair), strict=True):
        assert sum(chain) == pytest.approx(free)
        assert chain[0] <= len(rounds) * LATENCY + 1e-9


def test_lateness_of_a_message_is_counted_apart(clock: Clock) -> None:
    end = CriticalPath(common_clock=True)
    clock.now = 1.0
    end.on_send()
    clock.now = 14.0
    end.on_receive((2.0, 30.0, 1.0, 5.0, 7.0), due=12.0)
    assert (end.network, end.delay, end.own_compute, end.peer_compute) == (40.0, 3.0, 7.0, 5.0)
    end.on_send()
    clock.now = 15.0
    end.on_receive((13.0, 0.0, 0.0, 0.0, 0.0), due=13.5)  # it arrived before this party waited for it
    assert (end.network, end.delay, end.own_compute, end.peer_compute) == (40.0, 4.0, 7.0, 5.0)


def test_without_an_imitated_network_nothing_is_late(clock: Clock) -> None:
    end = CriticalPath(common_clock=True)
    end.on_send()
    clock.now = 3.0
    end.on_receive((2.0, 30.0, 0.0, 5.0, 7.0), due=None)
    assert (end.network, end.delay, end.own_compute, end.peer_compute) == (31.0, 0.0, 7.0, 5.0)


def test_without_a_common_clock_all_waiting_is_the_networks(clock: Clock) -> None:
    end = CriticalPath(common_clock=False)
    clock.now = 2.0
    end.on_send()
    clock.now = 7.0
    end.on_receive((1e9, 5.0, 5.0, 5.0, 5.0), due=None)
    assert (end.network, end.own_compute, end.peer_compute) == (5.0, 2.0, 0.0)
