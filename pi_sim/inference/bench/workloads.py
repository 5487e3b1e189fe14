"""Benchmark workloads: every operation that communicates, at the example operands of its definition."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from pi_sim.cost.sheet import op_features
from pi_sim.graph.ops import Op
from pi_sim.graph.vocabulary import VOCABULARY, Operand, Sizes
from pi_sim.records import BenchSize

CAUSAL_KERNELS = {"tournament", "narrow-tournament", "wide-tournament"}
"""Kernels of softmax that do not compute scores behind a causal mask."""
OPERAND_SEED = 0


@dataclass(frozen=True)
class Workload:
    """An operation at its example operands, by its name on the page; some are priced and not run."""

    name: str
    op: Op
    operands: tuple[Operand, ...]
    is_run: bool = True

    @property
    def shapes(self) -> str:
        """Shapes of the operands, e.g. "1x128x768, 768"."""
        return ", ".join("x".join(map(str, shape)) for shape in self.op.shapes)

    def elements(self, kernel: str) -> int:
        """Return the number of elements of the result that the kernel computes."""
        partial = self.op.name == "softmax" and kernel in CAUSAL_KERNELS
        return int(op_features(self.op)["visible" if partial else "elements"])


def list_workloads(extent: BenchSize) -> list[Workload]:
    """Return all workloads; the embedding of the large vocabulary is only priced."""
    workloads = []
    for name in (name for name, operation in VOCABULARY.items() if operation.kind == "interactive"):
        if name == "embedding":
            for vocabulary in (extent.vocabulary, extent.large_vocabulary):
                workload = example_workload(name, extent.model_copy(update={"vocabulary": vocabulary}))
                is_run = vocabulary == extent.vocabulary
                workloads.append(replace(workload, name=f"{name}, V = {vocabulary:,}", is_run=is_run))
        else:
            workloads.append(example_workload(name, extent))
    return workloads


def example_workload(name: str, sizes: Sizes) -> Workload:
    """Return an operation at the example operands of its definition."""
    example = VOCABULARY[name].example(sizes)
    shapes, secret = zip(*((operand.shape, operand.secret) for operand in example.operands), strict=True)
    return Workload(name, Op(name, shapes, secret, tuple(sorted(example.attributes.items()))), example.operands)


def draw_operands(operands: tuple[Operand, ...]) -> list[Tensor]:
    """Return plaintext values of operands, the same at every call."""
    generator = torch.Generator().manual_seed(OPERAND_SEED)
    return [_draw_operand(operand, generator) for operand in operands]


def _draw_operand(operand: Operand, generator: torch.Generator) -> Tensor:
    """Draw reals that fixed point represents exactly, so that only the error of a kernel is measured."""
    shape = operand.shape
    if operand.values == "causal":
        return torch.ones(shape, dtype=torch.bool).tril()
    if operand.values == "positions":
        return torch.arange(*shape)
    if operand.values == "one-hot":
        *batch, length = shape
        return functional.one_hot(torch.randint(length, batch, generator=generator), length).byte()
    normal = torch.randn(shape, generator=generator, dtype=torch.float64) * operand.std
    values = (normal * 2**16).round() / 2**16
    if operand.values == "positive":
        return 1 + values.abs()
    return values if operand.secret else values.float()


def evaluate_reference(workload: Workload, values: list[Tensor]) -> Tensor:
    """Return the plaintext result; references take token ids instead of one-hot vectors."""
    pairs = zip(workload.operands, values, strict=True)
    operands = [value.argmax(-1) if operand.values == "one-hot" else value for operand, value in pairs]
    return VOCABULARY[workload.op.name].reference(*operands, **workload.op.semantics)
