"""Derived prices: the protocol's own kernels, run by one phantom party on tensors without data.

The phantom believes that it is party 0 of 2. What it opens goes nowhere and comes back unchanged, which is harmless
because there is no data; every opening is written down.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pi_sim.cost.cost import Cost
from pi_sim.cost.counting import Counting
from pi_sim.cost.work import Work
from pi_sim.graph.ops import Graph, Op
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.provider import FirstParty
from pi_sim.mpc.dealer.source import Source
from pi_sim.mpc.dealer.stream import Dry
from pi_sim.mpc.executor import apply, execute, open_weights, stationary
from pi_sim.mpc.primitives.stationary import settle
from pi_sim.specs import ProtocolCard

WORD = 8
PUBLIC_TYPES = {"softmax": torch.bool, "lookup": torch.long}


class Phantom(backend.Communicator):  # type: ignore[misc]
    """A communicator that sends nothing and records what it was asked to."""

    def __init__(self) -> None:
        self.rounds = self.bytes = 0

    def get_rank(self) -> int:
        return 0

    def get_world_size(self) -> int:
        return 2

    def all_reduce(self, shares: Any, op: Any = None, batched: bool = False) -> Any:
        """An opening to both parties: one message from each to the other, however many tensors are in it."""
        self.record(shares if batched else [shares])
        return shares

    def reduce(self, share: Tensor, dst: int, op: Any = None) -> None:
        """An opening to the other party, priced from the side that sends."""
        self.record([share])

    def record(self, tensors: list[Tensor]) -> None:
        self.rounds += 1
        self.bytes += WORD * sum(tensor.numel() for tensor in tensors)


class Measured(NamedTuple):
    """What one operation communicates, what party 0 computes for it, and what it opens once in a session."""

    cost: Cost
    work: Work
    session: int
    """Bytes that one party sends to open a weight under its mask; all weights of a session share a round."""


def price(op: Op, protocol: ProtocolCard) -> Cost:
    """What one operation costs."""
    return measure(op, protocol).cost


def measure(op: Op, protocol: ProtocolCard) -> Measured:
    """One operation, its weight opened beforehand where the kernel keeps it."""
    _prepare()
    with _observed(protocol) as seen:
        operands, place, counted = _operands(op), stationary(op, protocol), Counting()
        if place is not None:
            operands[place] = settle([operands[place].share])[0]
        opened = seen.take()
        with counted:
            apply(op, operands, protocol)
        return Measured(seen.take(), counted.work, opened.bytes)


def whole(graph: Graph, protocol: ProtocolCard) -> Cost:
    """What a whole graph costs, run from end to end: the check on the sum of prices."""
    with _observed(protocol) as seen:
        weights = {name: _secret(shape) for name, shape in graph.weights.items()}
        values: dict[str, Any] = {**weights, **{name: value.to("meta") for name, value in graph.constants.items()}}
        inputs = {**graph.inputs, "tokens": (*graph.input, graph.vocabulary)}
        whole_numbers = graph.onehots()
        values |= {name: _secret(shape, 0 if name in whole_numbers else None) for name, shape in inputs.items()}
        opened = open_weights(graph, weights, protocol)
        seen.take()
        execute(graph, values, protocol, opened)
        return seen.take()


@dataclass
class _Seen:
    """What the phantom and its dealer have counted."""

    phantom: Phantom
    dealer: FirstParty

    def take(self) -> Cost:
        """All since the last time."""
        found = Cost(self.phantom.rounds, self.phantom.bytes, self.dealer.produced + self.dealer.source.offline)
        self.phantom.rounds = self.phantom.bytes = self.dealer.produced = self.dealer.source.offline = 0
        return found


@contextmanager
def _observed(protocol: ProtocolCard) -> Iterator[_Seen]:
    seen = _Seen(Phantom(), FirstParty(Source(Dry(), Dry())))
    backend.phantom_generators()
    with backend.use(seen.phantom, seen.dealer, protocol.settings), torch.no_grad():
        yield seen


@cache
def _prepare() -> None:
    """One comparison that nobody counts: CrypTen then makes the constants of its circuits, and keeps them."""
    backend.phantom_generators()
    with backend.use(Phantom(), FirstParty(Source(Dry(), Dry())), {}):
        _secret((1,)).relu()


def _operands(op: Op) -> list[Any]:
    onehot = 1 if op.name == "embedding" else None
    return [
        _secret(shape, precision=0 if index == onehot else None)
        if secret
        else torch.empty(shape, dtype=PUBLIC_TYPES.get(op.name, torch.float32), device="meta")
        for index, (shape, secret) in enumerate(zip(op.shapes, op.secret, strict=True))
    ]


def _secret(shape: tuple[int, ...], precision: int | None = None) -> Any:
    return backend.shares(torch.empty(shape, dtype=torch.long, device="meta"), precision)
