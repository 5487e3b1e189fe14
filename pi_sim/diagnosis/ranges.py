"""Ranges of a secure computation's values, compared with fixed point and with the domains of the kernels.

A captured graph is evaluated on plaintext; its operations are those that secure kernels compute.

Expected failures of truncation, where each party shifts its own share as in stock CrypTen: a product has twice the
fractional bits until both parties shift their shares of it. With probability |x| / 2^64, x the product in the ring, the
sum of two uniform shares wraps around, and the result is off by 2^32, which corrupts everything that depends on it.
SecureML (IEEE S&P 2017), theorem 1, bounds the probability; `protocols/README.md` reports measurements.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pi_sim.diagnosis.hooks import finite_or_none
from pi_sim.graph import reference
from pi_sim.graph.ops import STRUCTURAL, Graph, Node
from pi_sim.zoo import modules
from pi_sim.zoo.modules import layer_index


class GraphObserver(ABC):
    """Collects statistics from the operations of a graph, one at a time, without storing their tensors."""

    @abstractmethod
    def on_node(self, node: Node, operands: list[Tensor], value: Tensor) -> None:
        """Add one operation on one sequence, with its operands and its value."""

    @abstractmethod
    def result(self, sequences: int) -> dict[str, Any]:
        """Return the statistics of that number of sequences, as JSON values."""


class ObservedGraph:
    """Evaluates a graph sequence by sequence and notifies all observers."""

    def __init__(self, graph: Graph, weights: Mapping[str, Tensor], observers: list[GraphObserver]) -> None:
        self.graph, self.weights, self.observers = graph, weights, observers
        self.sequence_count = 0

    @torch.no_grad()
    def evaluate(self, ids: Tensor) -> None:
        """Evaluate the graph on one sequence (1, T)."""
        for node, operands, value in reference.evaluate(self.graph, self.weights, ids):
            for observer in self.observers:
                observer.on_node(node, operands, value)
            del operands, value  # free their memory before the next operation allocates
        self.sequence_count += 1

    def results(self) -> dict[str, Any]:
        """Return the statistics of all observers."""
        statistics = (observer.result(self.sequence_count) for observer in self.observers)
        return {key: value for table in statistics for key, value in table.items()}


RING_BITS, FRACTION_BITS = 64, 16
FIXED_POINT_LIMIT = 2.0 ** (RING_BITS - 1 - 2 * FRACTION_BITS)
"""Largest value in fixed point: a product has twice the fractional bits until it is truncated."""
SKIPPED_OPS = STRUCTURAL | {"embedding", "lookup"}
"""Operations whose operands are one-hot, public or operands of another operation."""


@dataclass(frozen=True)
class Quantity:
    """Statistic of an operation's plaintext operands; `kernel` is accurate where it lies between `low` and `high`."""

    op: str
    name: str
    statistic: Callable[..., Tensor]
    kernel: str | None = None
    low: float = -FIXED_POINT_LIMIT
    high: float = FIXED_POINT_LIMIT


def _mask_scores(scores: Tensor, allowed: Tensor | None, hidden: float) -> Tensor:
    return scores if allowed is None else scores.masked_fill(~allowed, hidden)


def _row_maximum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    return _mask_scores(scores, allowed, -torch.inf).amax(-1)


def _below_maximum(scores: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return each row's lowest score minus its maximum, stacked on zeros, the highest such difference."""
    lowest = _mask_scores(scores, allowed, torch.inf).amin(-1) - _row_maximum(scores, allowed)
    return torch.stack([lowest, torch.zeros_like(lowest)])


BASIC_QUANTITIES = (
    Quantity("softmax", "score minus row maximum", _below_maximum),
    Quantity("softmax", "row maximum", _row_maximum),
    Quantity("layernorm", "variance", lambda x, *_: x.var(-1, unbiased=False)),
    Quantity("rmsnorm", "mean square", lambda x, *_: x.square().mean(-1)),
)


class RangeObserver(GraphObserver):
    """Minimum and maximum of each quantity, by operation and module, over all sequences."""

    def __init__(self, graph: Graph, quantities: list[Quantity]) -> None:
        self.token_independent = _token_independent_names(graph)
        self.quantities = {(quantity.op, quantity.name): quantity for quantity in (*BASIC_QUANTITIES, *quantities)}
        self.extremes: dict[tuple[Quantity, str], tuple[Tensor, Tensor]] = {}

    def on_node(self, node: Node, operands: list[Tensor], value: Tensor) -> None:
        for quantity, statistic in self._node_statistics(node, operands, value):
            self._update_extremes(quantity, node.module, statistic)

    def _node_statistics(self, node: Node, operands: list[Tensor], value: Tensor) -> Iterator[tuple[Quantity, Tensor]]:
        op = node.op.name
        if op in SKIPPED_OPS:
            return
        for quantity in self.quantities.values():
            if quantity.op == op:
                for head_operands in _split_heads(op, operands):
                    yield quantity, quantity.statistic(*head_operands)
        if op == "add" and node.module and node.module == modules.block_path(node.module):
            yield Quantity(op, "residual stream", torch.add), value
        elif op != "softmax":
            any_input = Quantity(op, "logits" if op == "reveal" else "input", torch.as_tensor)
            named = zip(node.inputs, operands, strict=True)
            yield from ((any_input, operand) for name, operand in named if name not in self.token_independent)

    def _update_extremes(self, quantity: Quantity, module: str, statistic: Tensor) -> None:
        if statistic.numel():
            low, high = statistic.aminmax()
            minimum, maximum = self.extremes.get((quantity, module), (low, high))
            self.extremes[quantity, module] = torch.minimum(minimum, low), torch.maximum(maximum, high)

    def result(self, sequences: int) -> dict[str, Any]:
        """Return one row for each quantity of each module; NaN is None and never fits."""
        return {"ranges": [_range_row(quantity, module, *ends) for (quantity, module), ends in self.extremes.items()]}


def _token_independent_names(graph: Graph) -> set[str]:
    """Return the names of weights, constants, and values computed from those alone, such as a transposed weight."""
    names = {*graph.weights, *graph.constants}
    for node in graph.nodes:
        if names.issuperset(node.inputs):
            names.add(node.name)
    return names


def _range_row(quantity: Quantity, module: str, minimum: Tensor, maximum: Tensor) -> dict[str, Any]:
    low, high = minimum.item(), maximum.item()
    largest = max(abs(low), abs(high))
    row: dict[str, Any] = {"op": quantity.op, "quantity": quantity.name, "module": module, "layer": layer_index(module)}
    row |= {name: finite_or_none(value) for name, value in (("min", low), ("max", high), ("largest", largest))}
    row["fits"] = largest < FIXED_POINT_LIMIT
    if quantity.kernel:
        inside = quantity.low <= low and high <= quantity.high
        row |= {"kernel": quantity.kernel, "domain": [quantity.low, quantity.high], "in_domain": inside}
    return row


def _split_heads(op: str, operands: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield scores (B, H, T, T) and their mask head by head, so that no statistic allocates a tensor of their size."""
    if op != "softmax" or operands[0].dim() != 4:
        yield operands
        return
    by_head = [operand.dim() == 4 and operand.shape[1] > 1 for operand in operands]
    for head in range(operands[0].shape[1]):
        yield [x[:, head : head + 1] if split else x for x, split in zip(operands, by_head, strict=True)]


WRAP_VALUE = 2.0 ** (RING_BITS - 2 * FRACTION_BITS)
"""Value of a product whose truncation fails with certainty; the probability is proportional to the value."""


TRUNCATED_PRODUCTS: dict[str, Callable[[list[Tensor], Tensor], Tensor]] = {
    **dict.fromkeys(("matmul", "multiply", "square", "scale", "scale_by"), lambda _, value: value),
    "linear": lambda operands, value: value - operands[2] if len(operands) == 3 else value,  # the bias is added later
    "rmsnorm": lambda operands, _: operands[0].square(),
    "layernorm": lambda operands, _: (operands[0] - operands[0].mean(-1, keepdim=True)).square(),
}
"""Truncated products by operation, of its operands and its value: the value, or the squares in a norm.

Other products inside kernels are not counted; they are small as long as a kernel is in its domain.
"""


class TruncationObserver(GraphObserver):
    """Expected number of failed truncations in a sequence, by operation and module."""

    def __init__(self) -> None:
        self.expected: dict[tuple[str, str], float] = {}

    def on_node(self, node: Node, operands: list[Tensor], value: Tensor) -> None:
        key = op, _ = node.op.name, node.module
        if op in TRUNCATED_PRODUCTS:
            failures = expected_failures(TRUNCATED_PRODUCTS[op](operands, value))
            self.expected[key] = self.expected.get(key, 0.0) + failures

    def result(self, sequences: int) -> dict[str, Any]:
        rows = [
            {"op": op, "module": module, "layer": layer_index(module), "expected_failures": failures / sequences}
            for (op, module), failures in self.expected.items()
        ]
        return {"truncations": rows}


def expected_failures(products: Tensor) -> float:
    """Return the expected failures among products of these values, at most one each; NaN and infinities always fail."""
    expected = torch.linalg.vector_norm(products, 1).item() / WRAP_VALUE
    return expected if expected < products.numel() else float(products.numel())
