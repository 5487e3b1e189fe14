"""A phantom: a party without data and without a partner, for what is known before anybody runs.

It believes that it is party 0 of 2. What it opens goes nowhere and comes back unchanged, which is harmless because
there is no data; every opening is written down. Tensors are on the meta device: shapes without elements.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.ops import Graph, Shape
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.provider import Provider
from pi_sim.mpc.dealer.source import Source
from pi_sim.mpc.dealer.stream import Drawn, Dry
from pi_sim.mpc.dealer.tape import Recording, Tape
from pi_sim.mpc.executor import execute, open_weights
from pi_sim.mpc.primitives.stationary import Weight
from pi_sim.specs import ProtocolCard

WORD = 8


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
        self.count_message(shares if batched else [shares])
        return shares

    def reduce(self, share: Tensor, dst: int, op: Any = None) -> None:
        """An opening to the other party, priced from the side that sends."""
        self.count_message([share])

    def count_message(self, tensors: list[Tensor]) -> None:
        self.rounds += 1
        self.bytes += WORD * sum(tensor.numel() for tensor in tensors)


@contextmanager
def running(settings: Mapping[str, Any], source: Source, zeros: Drawn) -> Iterator[Phantom]:
    """A phantom that runs kernels with correlations from `source`, and CrypTen's sharings of zero from `zeros`."""
    phantom = Phantom()
    backend.draw_from(zeros, zeros, zeros)
    with backend.use(phantom, Provider(source), settings), torch.no_grad():
        yield phantom


def secret(shape: Shape, precision: int | None = None) -> Any:
    """A shared tensor without data."""
    return backend.shares(torch.empty(shape, dtype=torch.long, device="meta"), precision)


def settle(graph: Graph, protocol: ProtocolCard) -> dict[str, Weight]:
    """Open the weights that stay put, as a party does once in a session."""
    return open_weights(graph, _weights(graph), protocol)


def walk(graph: Graph, protocol: ProtocolCard, opened: dict[str, Weight]) -> None:
    """Run a graph from end to end, as a party does for each sequence."""
    inputs = {**graph.inputs, "tokens": (*graph.input, graph.vocabulary)}
    whole_numbers = graph.one_hot_inputs()
    values: dict[str, Any] = {name: value.to("meta") for name, value in graph.constants.items()}
    values |= {name: secret(shape, 0 if name in whole_numbers else None) for name, shape in inputs.items()}
    execute(graph, _weights(graph) | values, protocol, opened)


def record(graph: Graph, protocol: ProtocolCard) -> Tape:
    """Everything that one party asks the dealer for, for any graph and protocol, from public knowledge alone."""
    source = Recording(Dry())
    with running(protocol.settings, source, Dry()):
        opened = settle(graph, protocol)
        session = source.take_items()
        walk(graph, protocol, opened)
        return Tape(session, source.take_items())


def _weights(graph: Graph) -> dict[str, Any]:
    return {name: secret(shape) for name, shape in graph.weights.items()}
