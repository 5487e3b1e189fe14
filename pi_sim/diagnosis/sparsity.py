"""Exact zeros in front of the weight matrices, and the work that they would save in the clear.

As in table 1 of "ReLU Strikes Back" (arXiv 2310.04564): a zero in an input of x W lets a row of W be skipped. Under
secure computation it saves nothing, because nobody may know where the zeros are.
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
    """One matrix (k, n): what it reads, its work per token, and the zeros among the numbers that it was given."""

    layer: int | None
    role: str | None
    flops: int
    zeros: Tensor | int = 0
    element_count: int = 0

    @property
    def sparsity(self) -> float:
        """The share of exact zeros in its input."""
        return int(self.zeros) / self.element_count if self.element_count else 0.0


class SparsityProbe(Probe):
    """The share of exact zeros in the inputs of QKV, up and down projections, by layer."""

    def __init__(self) -> None:
        self.matrices: list[WeightMatrix] = []
        self.layers = 0

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        self.layers = len(modules.block_modules(model))
        for path, module in modules.weight_matrices(model):
            numbers = sum(weight.numel() for weight in module.parameters() if weight.dim() == 2)
            matrix = WeightMatrix(modules.layer_index(path), modules.matrix_role(path, module), 2 * numbers)
            self.matrices.append(matrix)
            if matrix.role:
                yield module.register_forward_pre_hook(partial(_count_zeros, matrix))

    def result(self) -> dict[str, Any]:
        """`flops` are those of one token in all matrices of the blocks, a product and a sum counted as two."""
        saved = sum(matrix.flops * matrix.sparsity for matrix in self.matrices)
        whole = sum(matrix.flops for matrix in self.matrices)
        sparsity = {role: [self._mean_sparsity(layer, role) for layer in range(self.layers)] for role in ROLES}
        return {"sparsity": sparsity, "flops": {"per_token": whole, "saved": saved, "share": saved / whole}}

    def _mean_sparsity(self, layer: int, role: str) -> float | None:
        """Over the matrices of that role in a layer; None where there is none, such as in a layer without FFN."""
        found = [matrix.sparsity for matrix in self.matrices if (matrix.layer, matrix.role) == (layer, role)]
        return sum(found) / len(found) if found else None


def _count_zeros(matrix: WeightMatrix, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    matrix.zeros = matrix.zeros + (args[0] == 0).sum()
    matrix.element_count += args[0].numel()


def uncounted_matrices(model: nn.Module) -> list[str]:
    """A sentence if there are matrices in front of which nobody looks for zeros, so that they seem to save nothing."""
    kinds = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", path) for path in modules.unclassified_matrices(model))
    return [f"Zeros before {', '.join(kinds)} are not counted: the names tell no role."] if kinds else []
