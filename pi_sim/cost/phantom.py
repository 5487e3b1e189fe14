"""Derived prices: the protocol's own kernels, run by one phantom party on tensors without data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from pi_sim.cost.cost import Cost
from pi_sim.cost.counting import Counting
from pi_sim.cost.work import Work
from pi_sim.graph.ops import Graph, Op
from pi_sim.mpc import backend, session
from pi_sim.mpc.dealer.source import Dealing
from pi_sim.mpc.dealer.stream import Dry
from pi_sim.mpc.dealer.tape import Entry, Recording
from pi_sim.mpc.executor import apply, stationary
from pi_sim.mpc.phantom import Phantom, running, secret, settle, walk
from pi_sim.mpc.primitives import stationary as weights
from pi_sim.mpc.primitives.waves import tables
from pi_sim.specs import ProtocolCard

PUBLIC_TYPES = {"softmax": torch.bool, "lookup": torch.long}


class Measured(NamedTuple):
    """What one operation communicates, what computing it takes, and what it opens once in a session."""

    cost: Cost
    work: Work
    """Party 0's own."""
    dealer_work: Work
    """What it takes to deal the correlations, for whoever plays the dealer."""
    session_bytes: int
    """Bytes that one party sends to open a weight under its mask; all weights of a session share a round."""


def price(op: Op, protocol: ProtocolCard) -> Cost:
    """What one operation costs."""
    return measure(op, protocol).cost


def measure(op: Op, protocol: ProtocolCard) -> Measured:
    """One operation, its weight opened beforehand where the kernel keeps it; again where that made constants."""
    made = _constants()
    found = _measure(op, protocol)
    return found if _constants() == made else _measure(op, protocol)


def _constants() -> int:
    """How often any were made so far, which is no work: circuits and series of CrypTen's, tables of our kernels."""
    return sum(each.cache_info().misses for each in (*backend.CONSTANTS, tables))


def _measure(op: Op, protocol: ProtocolCard) -> Measured:
    """The same, with the work of making constants where they are not yet known."""
    with _observed(protocol) as seen:
        operands, place, counted = _operands(op), stationary(op, protocol), Counting(seen.prg)
        if place is not None:
            operands[place] = weights.settle([operands[place].share])[0]
        opened, before = seen.take_cost(), seen.source.take_items()
        with counted:
            apply(op, operands, protocol)
        return Measured(seen.take_cost(), counted.work, _dealing(before, seen.source.take_items()), opened.bytes)


def whole(graph: Graph, protocol: ProtocolCard) -> Cost:
    """What a whole graph costs, run from end to end: the check on the sum of prices."""
    with _observed(protocol) as seen:
        opened = settle(graph, protocol)
        seen.take_cost()
        walk(graph, protocol, opened)
        return seen.take_cost()


@dataclass
class _Seen:
    """What the phantom and its dealer have counted, and what was drawn."""

    communicator: Phantom
    source: Recording
    prg: Dry

    def take_cost(self) -> Cost:
        """All since the last time."""
        found = Cost(self.communicator.rounds, self.communicator.bytes, self.source.offline_bytes)
        self.communicator.rounds = self.communicator.bytes = self.source.offline_bytes = 0
        return found


@contextmanager
def _observed(protocol: ProtocolCard) -> Iterator[_Seen]:
    drawn = Dry()
    source = Recording(drawn)
    with running(protocol.settings, source, drawn) as phantom:
        yield _Seen(phantom, source, drawn)


def _dealing(before: tuple[Entry, ...], entries: tuple[Entry, ...]) -> Work:
    """What a dealer does for these entries, besides drawing party 0's shares, which party 0 draws as well."""
    drawn, numbers = Dry(), list[int]()
    source, counted = Dealing(Dry(), drawn), Counting(drawn)
    for entry in before:
        entry.request(source, numbers)
    with session.run(None, source), counted:
        for entry in entries:
            entry.request(source, numbers)
    return counted.work


def _operands(op: Op) -> list[Any]:
    onehot = 1 if op.name == "embedding" else None
    return [
        secret(shape, precision=0 if index == onehot else None)
        if hidden
        else torch.empty(shape, dtype=PUBLIC_TYPES.get(op.name, torch.float32), device="meta")
        for index, (shape, hidden) in enumerate(zip(op.shapes, op.secret, strict=True))
    ]
