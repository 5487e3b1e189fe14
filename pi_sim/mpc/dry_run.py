"""A phantom: a party without data and without a partner, for what is known before anybody runs.

It believes that it is party 0 of 2. What it opens goes nowhere and comes back unchanged, which is harmless because
there is no data; every opening is written down. Tensors are on the meta device: shapes without elements.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pi_sim.graph.ops import Graph, Shape
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.prg import Prg, ShapePrg
from pi_sim.mpc.dealer.sources import Demand, RecordingSource, Source
from pi_sim.mpc.executor import execute, open_graph_weights
from pi_sim.mpc.primitives.beaver import OpenedWeight
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.mpc.runtime import Runtime
from pi_sim.specs import ExecutableProtocol


class CountingCommunicator(backend.Communicator):  # type: ignore[misc]
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
        self.bytes += WORD_BYTES * sum(tensor.numel() for tensor in tensors)


@contextmanager
def dry_runtime(protocol: ExecutableProtocol, source: Source, zeros: Prg) -> Iterator[Runtime]:
    """A phantom that runs kernels with correlations from `source`, and CrypTen's sharings of zero from `zeros`."""
    backend.set_zero_prgs(zeros, zeros, zeros)
    with Runtime.running(CountingCommunicator(), source, protocol) as rt:
        yield rt


def secret_tensor(shape: Shape, precision: int | None = None) -> Any:
    """A shared tensor without data."""
    return backend.fixed_point_tensor(torch.empty(shape, dtype=torch.long, device="meta"), precision)


def run_setup(rt: Runtime, graph: Graph, protocol: ExecutableProtocol) -> dict[str, OpenedWeight]:
    """Open the weights that stay put, as a party does once in a session."""
    return open_graph_weights(rt, graph, _secret_weights(graph), protocol)


def run_sequence(rt: Runtime, graph: Graph, protocol: ExecutableProtocol, opened: dict[str, OpenedWeight]) -> None:
    """Run a graph from end to end, as a party does for each sequence."""
    inputs = {**graph.inputs, "tokens": (*graph.input, graph.vocabulary)}
    whole_numbers = graph.one_hot_inputs()
    values: dict[str, Any] = {name: value.to("meta") for name, value in graph.constants.items()}
    values |= {name: secret_tensor(shape, 0 if name in whole_numbers else None) for name, shape in inputs.items()}
    execute(rt, graph, _secret_weights(graph) | values, protocol, opened)


def record_demand(graph: Graph, protocol: ExecutableProtocol) -> Demand:
    """Everything that one party asks the dealer for, for any graph and protocol, from public knowledge alone."""
    source = RecordingSource(ShapePrg())
    with dry_runtime(protocol, source, ShapePrg()) as rt:
        opened = run_setup(rt, graph, protocol)
        session = source.take_items()
        run_sequence(rt, graph, protocol, opened)
        return Demand(session, source.take_items())


def _secret_weights(graph: Graph) -> dict[str, Any]:
    return {name: secret_tensor(shape) for name, shape in graph.weights.items()}
