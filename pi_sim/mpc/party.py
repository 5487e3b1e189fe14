"""A party: its shares, its end of the link and its dealer, evaluating the graph on one sequence after another."""

# MERGED: Where a party computes: on the processor, or on a GPU that multiplies integers by limbs.

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph.ops import Graph, Node
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.executor import execute, open_graph_weights
from pi_sim.mpc.primitives.beaver import OpenedWeight
from pi_sim.mpc.primitives.ring import LimbMatmulMode
from pi_sim.mpc.runtime import Runtime
from pi_sim.mpc.transport.link import Link, benchmark_link
from pi_sim.specs import ExecutableProtocol

CPU = "cpu"


def require_device(name: str) -> None:
    """A `UsageError` where this machine has no such device."""
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA GPU on this machine; use --device cpu.")


def device_context(name: str) -> AbstractContextManager[object]:
    """A context in which every kernel, CrypTen's too, can compute on tensors that lie there."""
    return nullcontext() if name == CPU else LimbMatmulMode(torch.device(name))


Counters = dict[str, Any]
"""What a party counted in one stretch of a run, see `Party.counters`; of a sequence also up to each of its `nodes`."""
ProgressCallback = Callable[[int, int], None]
"""Is told after every node how many of how many are done."""


def sequence_progress(sequences: int, progress: Callable[[float], None]) -> ProgressCallback:
    """Tells nodes done of one sequence after another as a fraction of all."""
    finished = 0

    def told(done: int, of: int) -> None:
        nonlocal finished
        fraction = (finished + done / of) / sequences
        finished += done == of
        progress(fraction)

    return told


@dataclass(frozen=True)
class PartyResult:
    """What one party counted, opening its weights (`session`) and in each sequence, and what it measured of its `link`.

    `logits` (N, T, V) are the client's; the server opens none. `passed` is all payload that was sent and received, with
    what measuring the link took.
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
    told: ProgressCallback,
    device: str = CPU,
) -> PartyResult:
    """Run a party on its shares of one-hot tokens (B, T, V), one sequence after another."""
    source.device = torch.device(device)
    with Runtime.running(link, source, protocol) as rt, device_context(device):
        weights = {name: backend.fixed_point_tensor(share.to(device)) for name, share in shares.items()}
        party = Party(rt, graph, protocol, weights, link, source)
        measured = benchmark_link(link)
        opening = party.open_weights()
        runs = [party.infer(onehot, told) for onehot in onehots]
    logits = [found for _, found in runs if found is not None]
    opened, passed = torch.cat(logits) if logits else None, (link.sent, link.received)
    return PartyResult(measured, opening, [counts for counts, _ in runs], opened, passed)


class Party:
    """A party that holds its shares of the weights and evaluates the graph on one sequence after another."""

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
        """What was counted while the weights that stay put were opened under their masks, once for all sequences."""
        before = self.read_counters()
        self.opened_weights = open_graph_weights(self.rt, self.graph, self.weights, self.protocol)
        return self._counters_since(before)

    def infer(self, onehot: Tensor, told: ProgressCallback) -> tuple[Counters, Tensor | None]:
        """What was counted for one sequence, in all and up to each node, and its logits (at the client)."""
        before, nodes = self.read_counters(), []

        def note(node: Node) -> None:
            nodes.append((self.link.rounds - before["rounds"], self.link.sent - before["sent"]))
            told(len(nodes), len(self.graph.nodes))

        tokens = backend.fixed_point_tensor(onehot.to(self.source.device), precision=0)
        values = {**self.weights, **self.constants, "tokens": tokens}
        logits = execute(self.rt, self.graph, values, self.protocol, self.opened_weights, note)
        return {**self._counters_since(before), "nodes": nodes}, logits

    def _counters_since(self, before: Counters) -> Counters:
        return {name: count - before[name] for name, count in self.read_counters().items()}

    def read_counters(self) -> Counters:
        """Every counter as it stands: the link's own, CrypTen's, the dealer's, and the clock.

        Of the seconds those of communicating and waiting lie on the critical path, see `pi_sim.mpc.transport.link`.
        """
        return {
            "rounds": self.link.rounds,
            "sent": self.link.sent,
            "received": self.link.received,
            "crypten_rounds": self.link.comm_rounds,
            "crypten_bytes": self.link.comm_bytes,
            "offline": self.source.offline_bytes,
            "asked": self.rt.requested_bytes,
            "communication_seconds": self.link.critical_path.network + self.link.critical_path.delay,
            "late_seconds": self.link.critical_path.delay,
            "peer_wait_seconds": self.link.critical_path.peer_compute,
            "seconds": time.perf_counter(),
        }
