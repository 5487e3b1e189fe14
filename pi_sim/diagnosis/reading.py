"""A captured graph read in the clear: its operations are those that secure kernels compute."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pi_sim.graph import plain
from pi_sim.graph.ops import Graph, Node


class GraphObserver(ABC):
    """Learns from one operation after the other, without keeping their tensors."""

    @abstractmethod
    def on_node(self, node: Node, operands: list[Tensor], value: Tensor) -> None:
        """One operation of a sequence, with what it reads and what it gives."""

    @abstractmethod
    def result(self, sequences: int) -> dict[str, Any]:
        """JSON values, of so many sequences."""


class ObservedGraph:
    """The graph on one sequence after the other, before the eyes of all readers."""

    def __init__(self, graph: Graph, weights: Mapping[str, Tensor], readers: list[GraphObserver]) -> None:
        self.graph, self.weights, self.observers = graph, weights, readers
        self.sequence_count = 0

    @torch.no_grad()
    def evaluate(self, ids: Tensor) -> None:
        """One sequence (1, T)."""
        for node, operands, value in plain.evaluate(self.graph, self.weights, ids):
            for reader in self.observers:
                reader.on_node(node, operands, value)
            del operands, value  # the next operation shall not find its memory taken
        self.sequence_count += 1

    def results(self) -> dict[str, Any]:
        """What all of them found."""
        return {key: value for reader in self.observers for key, value in reader.result(self.sequence_count).items()}
