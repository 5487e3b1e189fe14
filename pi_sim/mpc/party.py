"""A party: its shares, its end of the link, its dealer and its device, evaluating a graph sequence by sequence."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.ops import Graph, Node
from pi_sim.mpc import backend
from pi_sim.mpc.dealer import dealt_file, server
from pi_sim.mpc.dealer.dealers import DEALT_FILE, THIRD_PARTY, Dealer, DealerSpec, FirstPartyDealer, RunIdentity
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.executor import execute, open_graph_weights
from pi_sim.mpc.primitives.beaver import OpenedWeight
from pi_sim.mpc.primitives.ring import LimbMatmulMode
from pi_sim.mpc.runtime import Runtime
from pi_sim.mpc.transport.link import Link, benchmark_link
from pi_sim.specs import ExecutableProtocol

CPU = "cpu"


def require_device(name: str) -> None:
    """Raise `UsageError` if this machine has no such device."""
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA GPU on this machine; use --device cpu.")


def device_context(name: str) -> AbstractContextManager[object]:
    """Return a context in which kernels, CrypTen's too, compute on a device: a GPU multiplies integers by limbs."""
    return nullcontext() if name == CPU else LimbMatmulMode(torch.device(name))


def open_dealer(spec: DealerSpec, rank: int, identity: RunIdentity, sequences: int, timeout: float) -> Dealer:
    """Return the dealer as a party sees it; raise `UsageError` or `RunError` if it does not serve this run."""
    if spec.kind == DEALT_FILE:
        return dealt_file.open_dealt_file(Path(spec.path), rank, identity, sequences)
    if spec.kind == THIRD_PARTY:
        return server.request_seed(spec.port, bytes.fromhex(spec.token), rank, identity, sequences, timeout)
    return FirstPartyDealer(rank)


Counters = dict[str, Any]
"""Counters of one stretch of a run, see `Party.read_counters`; of a sequence also at each of its `nodes`."""
ProgressCallback = Callable[[int, int], None]
"""Called after every node with the number of evaluated nodes and of all nodes."""


def sequence_progress(sequences: int, progress: Callable[[float], None]) -> ProgressCallback:
    """Return a callback that turns nodes of consecutive sequences into a fraction of all sequences."""
    finished = 0

    def on_node(done: int, total: int) -> None:
        nonlocal finished
        fraction = (finished + done / total) / sequences
        finished += done == total
        progress(fraction)

    return on_node


@dataclass(frozen=True)
class PartyResult:
    """Counters of one party, of its `session` (opening fixed weights) and of each sequence, and the speed of its link.

    `logits` (N, T, V) are the client's, None at the server. `payload_bytes` are all bytes of payload, sent and
    received, including those of the link's benchmark.
    """

    link: dict[str, float]
    session: Counters
    sequences: list[Counters]
    logits: Tensor | None
    payload_bytes: tuple[int, int]


def run_party(
    graph: Graph,
    protocol: ExecutableProtocol,
    shares: dict[str, Tensor],
    link: Link,
    source: Source,
    onehots: Iterable[Tensor],
    on_node: ProgressCallback,
    device: str = CPU,
) -> PartyResult:
    """Run a party on its shares of one-hot tokens (B, T, V), sequence by sequence."""
    source.device = torch.device(device)
    with Runtime.running(link, source, protocol) as rt, device_context(device):
        weights = {name: backend.fixed_point_tensor(share.to(device)) for name, share in shares.items()}
        party = Party(rt, graph, protocol, weights, link, source)
        link_speed = benchmark_link(link)
        session = party.open_weights()
        results = [party.infer(onehot, on_node) for onehot in onehots]
    logits = [values for _, values in results if values is not None]
    return PartyResult(
        link=link_speed,
        session=session,
        sequences=[counters for counters, _ in results],
        logits=torch.cat(logits) if logits else None,
        payload_bytes=(link.sent, link.received),
    )


class Party:
    """A party that holds its shares of the weights and evaluates the graph on sequences."""

    def __init__(
        self,
        rt: Runtime,
        graph: Graph,
        protocol: ExecutableProtocol,
        weights: dict[str, Any],
        link: Link,
        source: Source,
    ) -> None:
        self.rt = rt
        self.graph, self.protocol, self.weights, self.link, self.source = graph, protocol, weights, link, source
        self.constants = {name: value.to(source.device) for name, value in graph.constants.items()}
        self.opened_weights: dict[str, OpenedWeight] = {}

    def open_weights(self) -> Counters:
        """Open the fixed weights under their masks, once for all sequences; return the counters of that."""
        before = self.read_counters()
        self.opened_weights = open_graph_weights(self.rt, self.graph, self.weights, self.protocol)
        return self._counters_since(before)

    def infer(self, onehot: Tensor, on_node: ProgressCallback) -> tuple[Counters, Tensor | None]:
        """Return the counters of one sequence, in total and up to each node, and its logits (None at the server)."""
        before, nodes = self.read_counters(), []

        def count_node(node: Node) -> None:
            nodes.append((self.link.rounds - before["rounds"], self.link.sent - before["sent"]))
            on_node(len(nodes), len(self.graph.nodes))

        tokens = backend.fixed_point_tensor(onehot.to(self.source.device), precision=0)
        values = {**self.weights, **self.constants, "tokens": tokens}
        logits = execute(self.rt, self.graph, values, self.protocol, self.opened_weights, count_node)
        return {**self._counters_since(before), "nodes": nodes}, logits

    def _counters_since(self, before: Counters) -> Counters:
        return {name: count - before[name] for name, count in self.read_counters().items()}

    def read_counters(self) -> Counters:
        """Return every counter's present value: the link's, CrypTen's, the dealer's, and the clock.

        `offline` counts the bytes that came from the dealer, `requested` those that kernels asked it for. Seconds of
        communication and waiting are those on the critical path, see `pi_sim.mpc.transport.link`.
        """
        return {
            "rounds": self.link.rounds,
            "sent": self.link.sent,
            "received": self.link.received,
            "crypten_rounds": self.link.comm_rounds,
            "crypten_bytes": self.link.comm_bytes,
            "offline": self.source.offline_bytes,
            "requested": self.rt.requested_bytes,
            "communication_seconds": self.link.critical_path.network + self.link.critical_path.delay,
            "late_seconds": self.link.critical_path.delay,
            "peer_wait_seconds": self.link.critical_path.peer_compute,
            "seconds": time.perf_counter(),
        }
