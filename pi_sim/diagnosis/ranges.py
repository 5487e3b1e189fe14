"""How large the numbers are that a secure computation will hold: whether fixed point and kernels are made for them."""

# MERGED: A captured graph read in the clear: its operations are those that secure kernels compute.
# MERGED: How many truncations are expected to fail, where each party shifts its own share as stock CrypTen does. A product has twice the fractional bits until both parties shift their shares of it. With probability |x| / 2^64, x the product in the ring, the sum of two uniform shares wraps around and the result is off by 2^32, which destroys all that depends on it. SecureML (IEEE S&P 2017), theorem 1, bounds the probability; `protocols/README.md` tells it as measured.  # noqa: E501

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
        for node, operands, value in reference.evaluate(self.graph, self.weights, ids):
            for reader in self.observers:
                reader.on_node(node, operands, value)
            del operands, value  # the next operation shall not find its memory taken
        self.sequence_count += 1

    def results(self) -> dict[str, Any]:
        """What all of them found."""
        return {key: value for reader in self.observers for key, value in reader.result(self.sequence_count).items()}


RING_BITS, FRACTION_BITS = 64, 16
FIXED_POINT_LIMIT = 2.0 ** (RING_BITS - 1 - 2 * FRACTION_BITS)
"""What fixed point holds: a product has twice the fractional bits until it is truncated."""
SKIPPED_OPS = STRUCTURAL | {"embedding", "lookup"}
"""Operations whose operands are one-hot, public or seen elsewhere."""


@dataclass(frozen=True)
class Quantity:
    """A number that an operation's plain operands give; `kernel` is right where it lies from `low` to `high`."""

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
    """Each row's lowest; the highest is zero by definition."""
    lowest = _mask_scores(scores, allowed, torch.inf).amin(-1) - _row_maximum(scores, allowed)
    return torch.stack([lowest, torch.zeros_like(lowest)])


BASIC_QUANTITIES = (
    Quantity("softmax", "score minus row maximum", _below_maximum),
    Quantity("softmax", "row maximum", _row_maximum),
    Quantity("layernorm", "variance", lambda x, *_: x.var(-1, unbiased=False)),
    Quantity("rmsnorm", "mean square", lambda x, *_: x.square().mean(-1)),
)


class RangeObserver(GraphObserver):
    """The least and the largest of each quantity, by operation and module, over all sequences that are read."""

    def __init__(self, graph: Graph, quantities: list[Quantity]) -> None:
        self.token_independent = _token_independent_names(graph)
        self.quantities = {(each.op, each.name): each for each in (*BASIC_QUANTITIES, *quantities)}
        self.extremes: dict[tuple[Quantity, str], tuple[Tensor, Tensor]] = {}

    def on_node(self, node: Node, operands: list[Tensor], value: Tensor) -> None:
        for quantity, measured in self._node_statistics(node, operands, value):
            self._update_extremes(quantity, node.module, measured)

    def _node_statistics(self, node: Node, operands: list[Tensor], value: Tensor) -> Iterator[tuple[Quantity, Tensor]]:
        op = node.op.name
        if op in SKIPPED_OPS:
            return
        for quantity in (each for (name, _), each in self.quantities.items() if name == op):
            for piece in _split_heads(op, operands):
                yield quantity, quantity.statistic(*piece)
        if op == "add" and node.module and node.module == modules.block_path(node.module):
            yield Quantity(op, "residual stream", torch.add), value
        elif op != "softmax":
            general = Quantity(op, "logits" if op == "reveal" else "input", torch.as_tensor)
            yield from ((general, operand) for operand in self._activation_operands(node, operands))

    def _activation_operands(self, node: Node, operands: list[Tensor]) -> Iterator[Tensor]:
        """The operands that depend on the tokens."""
        return (
            operand for name, operand in zip(node.inputs, operands, strict=True) if name not in self.token_independent
        )

    def _update_extremes(self, quantity: Quantity, module: str, measured: Tensor) -> None:
        if measured.numel():
            low, high = measured.aminmax()
            known = self.extremes.get((quantity, module), (low, high))
            self.extremes[quantity, module] = torch.minimum(known[0], low), torch.maximum(known[1], high)

    def result(self, sequences: int) -> dict[str, Any]:
        """One row for each quantity of each module; NaN is null and never fits."""
        return {"ranges": [_range_row(quantity, module, *ends) for (quantity, module), ends in self.extremes.items()]}


def _token_independent_names(graph: Graph) -> set[str]:
    """Weights, public constants, and what is made of those alone, such as a transposed weight."""
    names = {*graph.weights, *graph.constants}
    for node in graph.nodes:
        if names.issuperset(node.inputs):
            names.add(node.name)
    return names


def _range_row(quantity: Quantity, module: str, least: Tensor, most: Tensor) -> dict[str, Any]:
    low, high = least.item(), most.item()
    largest = max(abs(low), abs(high))
    row: dict[str, Any] = {"op": quantity.op, "quantity": quantity.name, "module": module, "layer": layer_index(module)}
    row |= {
        "min": finite_or_none(low),
        "max": finite_or_none(high),
        "largest": finite_or_none(largest),
        "fits": largest < FIXED_POINT_LIMIT,
    }
    if quantity.kernel:
        inside = quantity.low <= low and high <= quantity.high
        row |= {"kernel": quantity.kernel, "domain": [quantity.low, quantity.high], "in_domain": inside}
    return row


def _split_heads(op: str, operands: list[Tensor]) -> Iterator[list[Tensor]]:
    """Scores (B, H, T, T) with their mask head by head, so that no measure makes something of their size."""
    if op != "softmax" or operands[0].dim() != 4:
        yield operands
        return
    for head in range(operands[0].shape[1]):
        yield [each[:, head : head + 1] if each.dim() == 4 and each.shape[1] > 1 else each for each in operands]


WRAP_VALUE = 2.0 ** (RING_BITS - 2 * FRACTION_BITS)
"""The value of a product whose truncation is sure to fail; that of others fails in proportion."""
ProductFunction = Callable[[list[Tensor], Tensor], Tensor]


def _product_result(operands: list[Tensor], value: Tensor) -> Tensor:
    return value


def _without_bias(operands: list[Tensor], value: Tensor) -> Tensor:
    """A bias is added to what was truncated."""
    return value - operands[2] if len(operands) == 3 else value


def _squares(operands: list[Tensor], value: Tensor) -> Tensor:
    return operands[0].square()


def _centred_squares(operands: list[Tensor], value: Tensor) -> Tensor:
    return (operands[0] - operands[0].mean(-1, keepdim=True)).square()


TRUNCATED_PRODUCTS: dict[str, ProductFunction] = {
    **dict.fromkeys(("matmul", "multiply", "square", "scale", "scale_by"), _product_result),
    "linear": _without_bias,
    "rmsnorm": _squares,
    "layernorm": _centred_squares,
}
"""What is truncated: results, and the squares in a norm. The other products inside kernels are not counted; they are
small as long as a kernel is in its domain."""


class TruncationObserver(GraphObserver):
    """The expected number of failures in a sequence, by operation and module."""

    def __init__(self) -> None:
        self.expected: dict[tuple[str, str], float] = {}

    def on_node(self, node: Node, operands: list[Tensor], value: Tensor) -> None:
        op, place = node.op.name, (node.op.name, node.module)
        if op in TRUNCATED_PRODUCTS:
            self.expected[place] = self.expected.get(place, 0.0) + expected_failures(
                TRUNCATED_PRODUCTS[op](operands, value)
            )

    def result(self, sequences: int) -> dict[str, Any]:
        rows = [
            {"op": op, "module": module, "layer": layer_index(module), "expected_failures": failed / sequences}
            for (op, module), failed in self.expected.items()
        ]
        return {"truncations": rows}


def expected_failures(products: Tensor) -> float:
    """Expected among products of these values: at most one each, which those that are not finite are sure to be."""
    expected = torch.linalg.vector_norm(products, 1).item() / WRAP_VALUE
    return expected if expected < products.numel() else float(products.numel())
