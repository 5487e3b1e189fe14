"""Exact zeros in the inputs of the weight matrices, and the work that they would save on plaintext.

As in table 1 of "ReLU Strikes Back" (arXiv 2310.04564): a zero in the input x of x W makes a row of W superfluous.
Secure computation cannot skip it, because the positions of the zeros are secret.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pi_sim.diagnosis.hooks import Probe
from pi_sim.zoo import modules

ROLES = tuple(modules.MATRIX_ROLES)


@dataclass
class WeightMatrix:
    """Weight matrix (k, n): its layer and role, its work per token, and the zeros and elements of its inputs so far."""

    layer: int | None
    role: str | None
    flops: int
    zeros: Tensor | int = 0
    element_count: int = 0

    @property
    def sparsity(self) -> float:
        """Share of exact zeros in its inputs."""
        return int(self.zeros) / self.element_count if self.element_count else 0.0


class SparsityProbe(Probe):
    """Share of exact zeros in the inputs of QKV, up and down projections, by layer."""

    def __init__(self) -> None:
        self.matrices: list[WeightMatrix] = []
        self.layers = 0

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        self.layers = len(modules.block_modules(model))
        for path, module in modules.weight_matrices(model):
            elements = sum(weight.numel() for weight in module.parameters() if weight.dim() == 2)
            matrix = WeightMatrix(modules.layer_index(path), modules.matrix_role(path, module), 2 * elements)
            self.matrices.append(matrix)
            if matrix.role:
                yield module.register_forward_pre_hook(partial(_count_zeros, matrix))

    def result(self) -> dict[str, Any]:
        """Return sparsity by role and layer, and FLOPs of one token in all matrices of the blocks, two per product."""
        saved = sum(matrix.flops * matrix.sparsity for matrix in self.matrices)
        total = sum(matrix.flops for matrix in self.matrices)
        sparsity = {role: [self._mean_sparsity(layer, role) for layer in range(self.layers)] for role in ROLES}
        return {"sparsity": sparsity, "flops": {"per_token": total, "saved": saved, "share": saved / total}}

    def _mean_sparsity(self, layer: int, role: str) -> float | None:
        """Return the mean over a layer's matrices of that role; None where it has none, such as without FFN."""
        values = [matrix.sparsity for matrix in self.matrices if (matrix.layer, matrix.role) == (layer, role)]
        return sum(values) / len(values) if values else None


def _count_zeros(matrix: WeightMatrix, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    matrix.zeros = matrix.zeros + (args[0] == 0).sum()
    matrix.element_count += args[0].numel()


def uncounted_matrices(model: nn.Module) -> list[str]:
    """Return a sentence if the model has matrices of unknown role, whose inputs are not searched for zeros."""
    kinds = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", path) for path in modules.unclassified_matrices(model))
    return [f"Zeros before {', '.join(kinds)} are not counted: their names show no role."] if kinds else []
