"""How many truncations are expected to fail, where each party shifts its own share as stock CrypTen does.

A product has twice the fractional bits until both parties shift their shares of it. With probability |x| / 2^64, x the
product in the ring, the sum of two uniform shares wraps around and the result is off by 2^32, which destroys all that
depends on it. SecureML (IEEE S&P 2017), theorem 1, bounds the probability; `protocols/README.md` tells it as measured.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pi_sim.diagnosis.ranges import FRACTION_BITS, RING_BITS
from pi_sim.diagnosis.reading import GraphObserver
from pi_sim.graph.ops import Node
from pi_sim.zoo.anatomy import layer_index

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
            self.expected[place] = self.expected.get(place, 0.0) + expected_failures(TRUNCATED_PRODUCTS[op](operands, value))

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
