"""The operations that are measured, at the shapes of a GPT-2 block, and plain operands for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.cost.sheet import op_features
from pi_sim.graph.ops import Attribute, Op, Shape
from pi_sim.records import BenchSize

CAUSAL_KERNELS = {"tournament"}
"""Kernels of softmax that compute no score that a causal mask hides."""
OPERAND_SEED = 0


@dataclass(frozen=True)
class Workload:
    """An operation under the name that it has on the page; one that is not run is priced alone."""

    name: str
    op: Op
    is_run: bool = True

    @property
    def shapes(self) -> str:
        """Those of its operands."""
        return ", ".join("x".join(map(str, shape)) for shape in self.op.shapes)

    def elements(self, kernel: str) -> int:
        """Of the result, or of it those that the kernel computes."""
        partial = self.op.name == "softmax" and kernel in CAUSAL_KERNELS
        return int(op_features(self.op)["visible" if partial else "elements"])


def list_workloads(extent: BenchSize) -> list[Workload]:
    """Every operation that costs something."""
    return [
        *_product_ops(extent),
        *_activation_ops(extent),
        *_elementwise_ops(extent),
        *_row_ops(extent),
        *_vocabulary_ops(extent),
    ]


def _product_ops(extent: BenchSize) -> Iterator[Workload]:
    t, d, h = extent.tokens, extent.width, extent.heads
    yield _secret_workload("linear", (1, t, d), (d, 3 * d), (3 * d,))
    yield _secret_workload("matmul", (1, h, t, d // h), (1, h, d // h, t))
    yield _secret_workload("multiply", (1, t, d), (1, t, d))
    yield _secret_workload("square", (1, t, d))


def _activation_ops(extent: BenchSize) -> Iterator[Workload]:
    inner = (1, extent.tokens, 4 * extent.width)
    yield _secret_workload("relu", inner)
    yield _secret_workload("gelu", inner, approximate="tanh")
    yield _secret_workload("silu", inner)


def _elementwise_ops(extent: BenchSize) -> Iterator[Workload]:
    x = (1, extent.tokens, extent.width)
    yield _secret_workload("tanh", x)
    yield _secret_workload("erf", x)
    yield _secret_workload("clamp", x, low=-1.0, high=1.0)
    yield _secret_workload("reciprocal", x)
    yield _secret_workload("scale", x, factor=0.125)
    yield Workload("scale_by", Op("scale_by", (x, x), (True, False)))


def _row_ops(extent: BenchSize) -> Iterator[Workload]:
    t, d, h = extent.tokens, extent.width, extent.heads
    yield Workload("softmax", Op("softmax", ((1, h, t, t), (t, t)), (True, False), (("causal", True),)))
    yield _secret_workload("layernorm", (1, t, d), (d,), (d,), eps=1e-5)
    yield _secret_workload("rmsnorm", (1, t, d), (d,), eps=1e-5)


def _vocabulary_ops(extent: BenchSize) -> Iterator[Workload]:
    """What grows with the vocabulary."""
    t, d = extent.tokens, extent.width
    for vocabulary in (extent.vocabulary, extent.large_vocabulary):
        op = Op("embedding", ((vocabulary, d), (1, t, vocabulary)), (True, True))
        yield Workload(f"embedding, V = {vocabulary:,}", op, is_run=vocabulary == extent.vocabulary)
    yield _secret_workload("reveal", (1, t, extent.vocabulary))


def _secret_workload(name: str, *shapes: Shape, **attributes: Attribute) -> Workload:
    """An operation on secrets alone, called by its own name."""
    return Workload(name, Op(name, shapes, (True,) * len(shapes), tuple(sorted(attributes.items()))))


def example_operands(op: Op) -> list[Tensor]:
    """Plain values, the same at every call: normally distributed, rounded to what fixed point represents.

    Weights are small enough that results are of size 1, what a reciprocal is taken of is at least 1.
    """
    drawn = torch.Generator().manual_seed(OPERAND_SEED)
    if op.name == "embedding":
        (vocabulary, _), (*batch, _) = op.shapes
        ids = torch.randint(vocabulary, batch, generator=drawn)
        return [_draw_normal(drawn, op.shapes[0]), torch.nn.functional.one_hot(ids, vocabulary)]
    if op.name == "softmax":
        return [_draw_normal(drawn, op.shapes[0]), torch.ones(op.shapes[1], dtype=torch.bool).tril()]
    values = [_draw_normal(drawn, shape, _operand_scale(op, place)) for place, shape in enumerate(op.shapes)]
    if op.name == "reciprocal":
        return [1 + values[0].abs()]
    return [value if hidden else value.float() for value, hidden in zip(values, op.secret, strict=True)]


def _operand_scale(op: Op, place: int) -> float:
    return op.shapes[0][-1] ** -0.5 if op.name in ("linear", "matmul") and place == 1 else 1.0


def _draw_normal(drawn: torch.Generator, shape: Shape, scale: float = 1.0) -> Tensor:
    """Multiples of 2^-16, so that a kernel's own error alone is seen."""
    return (torch.randn(shape, generator=drawn, dtype=torch.float64) * scale * 2**16).round() / 2**16
