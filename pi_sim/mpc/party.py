"""A party: its shares, its end of the link and its dealer, evaluating the graph on one sequence after another."""

import json
import time
from typing import Any

from torch import Tensor

from pi_sim.graph.ops import Graph, Node
from pi_sim.mpc import backend, session
from pi_sim.mpc.dealer.source import Source
from pi_sim.mpc.executor import execute, open_weights
from pi_sim.mpc.link import Link
from pi_sim.mpc.primitives.stationary import Weight
from pi_sim.specs import ProtocolCard


class Party:
    """A party that holds its shares of the weights and evaluates the graph on one sequence after another."""

    def __init__(
        self, graph: Graph, protocol: ProtocolCard, weights: dict[str, Any], link: Link, source: Source
    ) -> None:
        self.graph, self.protocol, self.weights, self.link, self.source = graph, protocol, weights, link, source
        self.opened: dict[str, Weight] = {}

    def open_weights(self) -> dict[str, Any]:
        """What was counted while the weights that stay put were opened under their masks, once for all sequences."""
        before = self.counters()
        self.opened = open_weights(self.graph, self.weights, self.protocol)
        return self._since(before)

    def infer(self, onehot: Tensor) -> tuple[dict[str, Any], Tensor]:
        """What was counted for one sequence, in all and up to each node, and its logits (at the client)."""
        before, nodes = self.counters(), []

        def note(node: Node) -> None:
            nodes.append((self.link.rounds - before["rounds"], self.link.sent - before["sent"]))
            print(json.dumps({"done": len(nodes), "of": len(self.graph.nodes)}), flush=True)

        values = {**self.weights, **self.graph.constants, "tokens": backend.shares(onehot, precision=0)}
        logits = execute(self.graph, values, self.protocol, self.opened, note)
        return {**self._since(before), "nodes": nodes}, logits

    def _since(self, before: dict[str, Any]) -> dict[str, Any]:
        return {name: count - before[name] for name, count in self.counters().items()}

    def counters(self) -> dict[str, Any]:
        """Every counter as it stands: the link's own, CrypTen's, the dealer's, and the clock."""
        return {
            "rounds": self.link.rounds,
            "sent": self.link.sent,
            "received": self.link.received,
            "crypten_rounds": self.link.comm_rounds,
            "crypten_bytes": self.link.comm_bytes,
            "offline": self.source.offline,
            "asked": session.asked(),
            "communication_seconds": self.link.comm_time,
            "seconds": time.perf_counter(),
        }
