"""Derived prices: the protocol's own kernels, run by one phantom party on tensors without data."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from pi_sim.cost.cost import Cost
from pi_sim.cost.counting import WorkCounter
from pi_sim.cost.work import Work
from pi_sim.graph.ops import Graph, Op
from pi_sim.mpc import backend, session
from pi_sim.mpc.dealer.source import DealerSource
from pi_sim.mpc.dealer.stream import ShapePrg
from pi_sim.mpc.dealer.tape import DemandItem, RecordingSource
from pi_sim.mpc.executor import apply_op, fixed_operand
from pi_sim.mpc.phantom import CountingCommunicator, dry_runtime, run_sequence, run_setup, secret_tensor
from pi_sim.mpc.primitives import stationary as weights
from pi_sim.mpc.primitives.waves import interpolation_tables
from pi_sim.specs import ExecutableProtocol

PUBLIC_DTYPES = {"softmax": torch.bool, "lookup": torch.long}


class DerivedPrice(NamedTuple):
    """What one operation communicates, what computing it takes, and what it opens once in a session."""

    cost: Cost
    work: Work
    """Party 0's own."""
    dealer_work: Work
    """What it takes to deal the correlations, for whoever plays the dealer."""
    session_bytes: int
    """Bytes that one party sends to open a weight under its mask; all weights of a session share a round."""


def derive_cost(op: Op, protocol: ExecutableProtocol) -> Cost:
    """What one operation costs."""
    return derive_price(op, protocol).cost


def derive_price(op: Op, protocol: ExecutableProtocol) -> DerivedPrice:
    """One operation, its weight opened beforehand where the kernel keeps it; again where that made constants."""
    made = _constant_count()
    found = _derive_once(op, protocol)
    return found if _constant_count() == made else _derive_once(op, protocol)


def _constant_count() -> int:
    """How often any were made so far, which is no work: circuits and series of CrypTen's, tables of our kernels."""
    return sum(each.cache_info().misses for each in (*backend.CONSTANT_FUNCTIONS, interpolation_tables))


def _derive_once(op: Op, protocol: ExecutableProtocol) -> DerivedPrice:
    """The same, with the work of making constants where they are not yet known."""
    with _metered_dry_run(protocol) as seen:
        operands, place, counted = _shape_only_operands(op), fixed_operand(op, protocol), WorkCounter(seen.prg)
        if place is not None:
            operands[place] = weights.open_weight_shares([operands[place].share])[0]
        opened, before = seen.take_cost(), seen.source.take_items()
        with counted:
            apply_op(op, operands, protocol)
        return DerivedPrice(seen.take_cost(), counted.work, _dealer_work(before, seen.source.take_items()), opened.bytes)


def derive_graph_cost(graph: Graph, protocol: ExecutableProtocol) -> Cost:
    """What a whole graph costs, run from end to end: the check on the sum of prices."""
    with _metered_dry_run(protocol) as seen:
        opened = run_setup(graph, protocol)
        seen.take_cost()
        run_sequence(graph, protocol, opened)
        return seen.take_cost()


@dataclass
class _DryRunMeter:
    """What the phantom and its dealer have counted, and what was drawn."""

    communicator: CountingCommunicator
    source: RecordingSource
    prg: ShapePrg

    def take_cost(self) -> Cost:
        """All since the last time."""
        found = Cost(self.communicator.rounds, self.communicator.bytes, self.source.offline_bytes)
        self.communicator.rounds = self.communicator.bytes = self.source.offline_bytes = 0
        return found


@contextmanager
def _metered_dry_run(protocol: ExecutableProtocol) -> Iterator[_DryRunMeter]:
    drawn = ShapePrg()
    source = RecordingSource(drawn)
    with dry_runtime(protocol.settings, source, drawn) as phantom:
        yield _DryRunMeter(phantom, source, drawn)


def _dealer_work(before: tuple[DemandItem, ...], entries: tuple[DemandItem, ...]) -> Work:
    """What a dealer does for these entries, besides drawing party 0's shares, which party 0 draws as well."""
    drawn, numbers = ShapePrg(), list[int]()
    source, counted = DealerSource(ShapePrg(), drawn), WorkCounter(drawn)
    for entry in before:
        entry.request(source, numbers)
    with session.activate(None, source), counted:
        for entry in entries:
            entry.request(source, numbers)
    return counted.work


def _shape_only_operands(op: Op) -> list[Any]:
    onehot = 1 if op.name == "embedding" else None
    return [
        secret_tensor(shape, precision=0 if index == onehot else None)
        if hidden
        else torch.empty(shape, dtype=PUBLIC_DTYPES.get(op.name, torch.float32), device="meta")
        for index, (shape, hidden) in enumerate(zip(op.shapes, op.secret, strict=True))
    ]
