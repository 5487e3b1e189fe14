"""Probes: hooks that reduce the tensors of a forward pass, batch by batch, without storing them.

They count NaN and infinities in the output of each block, bin the inputs of activations, read learned scalars (the
slopes of leaky ReLUs, the alphas of DyT and Derf) and count the exact zeros in the inputs of weight matrices.

As in table 1 of "ReLU Strikes Back" (arXiv 2310.04564), a zero in the input x of x W makes a row of W superfluous on
plaintext. Secure computation cannot skip it, because the positions of the zeros are secret.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from pi_sim.zoo import modules
from pi_sim.zoo.layers import DyT, LearnableLeakyReLU
from pi_sim.zoo.scales import ScaledModel


class Probe(ABC):
    """Hooks on modules of a model, and the statistics that they collect."""

    @abstractmethod
    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        """Register the hooks, each of which reduces its tensors at once, and yield their handles."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """Return the statistics as JSON values; None stands for a number that is not finite."""


@torch.no_grad()
def run_probes(model: nn.Module, batches: Iterable[Tensor], probes: Sequence[Probe]) -> dict[str, Any]:
    """Run the model in evaluation mode on batches of token ids (B, T) and return the results of all probes.

    Draws no random numbers, and restores the model's mode.
    """
    training, inner = model.training, model.model if isinstance(model, ScaledModel) else model
    options = {"use_cache": False} if isinstance(model, PreTrainedModel) else {}
    with ExitStack() as stack:
        for probe in probes:
            for handle in probe.attach(inner):
                stack.callback(handle.remove)
        stack.callback(model.train, training)
        model.eval()
        for batch in batches:
            model(batch, **options)
    return {key: value for probe in probes for key, value in probe.result().items()}


def finite_or_none(value: float) -> float | None:
    """Return the number, or None for one that JSON cannot represent."""
    return value if math.isfinite(value) else None


def finite_values(tensor: Tensor) -> list[float | None]:
    """Return the elements of a vector as numbers for JSON."""
    return [finite_or_none(value) for value in tensor.tolist()]


class NonFiniteCounts(Probe):
    """Counts of NaN and infinities over all positions, by layer."""

    def __init__(self) -> None:
        self.counts: dict[int, Tensor] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for layer, (_, block) in enumerate(modules.block_modules(model)):
            yield block.register_forward_hook(partial(self._count, layer))

    def _count(self, layer: int, module: nn.Module, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        counts = torch.stack([hidden.isnan().sum(), hidden.isinf().sum()])
        self.counts[layer] = self.counts.get(layer, 0) + counts

    def result(self) -> dict[str, Any]:
        counts = [self.counts[layer].tolist() for layer in sorted(self.counts)]
        return {"non_finite": {"nan": [nan for nan, _ in counts], "inf": [inf for _, inf in counts]}}


HISTOGRAM_BINS = 96
"""Bins of a histogram; an even number, so that zero is an edge."""
HISTOGRAM_DEVIATIONS = 4
"""Distance of the outermost edges from zero, in standard deviations of the first batch."""


class PreActivationProbe(Probe):
    """Histogram of the inputs of each activation; the first batch determines the reach of its bins."""

    def __init__(self) -> None:
        self.histograms: dict[str, Histogram] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for path in modules.activation_paths(model):
            yield model.get_submodule(path).register_forward_pre_hook(partial(self._add_inputs, path))

    def _add_inputs(self, path: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].float()
        if path not in self.histograms:
            self.histograms[path] = Histogram(_histogram_reach(x))
        self.histograms[path].add(x)

    def result(self) -> dict[str, Any]:
        bins = ((path, histogram.to_json()) for path, histogram in self.histograms.items())
        return {"histograms": [{"module": path, "layer": modules.layer_index(path), **counts} for path, counts in bins]}


class Histogram:
    """Counts of numbers in bins between -reach and reach, below and above; NaN is not counted."""

    def __init__(self, reach: float) -> None:
        self.reach = reach
        self.counts: Tensor | int = 0
        self.negative = self.below = self.above = 0

    def add(self, x: Tensor) -> None:
        """Count the elements of a tensor."""
        self.counts = self.counts + torch.histc(x, HISTOGRAM_BINS, -self.reach, self.reach).long()
        self.negative += int((x < 0).sum())
        self.below += int((x < -self.reach).sum())
        self.above += int((x > self.reach).sum())

    def to_json(self) -> dict[str, Any]:
        """Return counts of equal bins from -reach to reach; `negative` is the share that a ReLU would set to zero."""
        counts = torch.as_tensor(self.counts).tolist()
        total = sum(counts) + self.below + self.above
        negative = self.negative / total if total else 0.0
        return {"reach": self.reach, "counts": counts, "below": self.below, "above": self.above, "negative": negative}


def _histogram_reach(x: Tensor) -> float:
    """Return |mean| plus some standard deviations; 1 where that is not a finite positive number."""
    reach = x.mean().abs().item() + HISTOGRAM_DEVIATIONS * x.std().item()
    return reach if math.isfinite(reach) and reach > 0 else 1.0


class LearnedSlopes(Probe):
    """Learned slope for negative inputs in each layer ("ReLU's Revival", arXiv 2410.09637); needs no hooks."""

    def __init__(self) -> None:
        self.slopes: list[float | None] = []

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        slopes = [_learned_slope(block) for _, block in modules.block_modules(model)]
        self.slopes = slopes if any(slope is not None for slope in slopes) else []
        yield from ()

    def result(self) -> dict[str, Any]:
        return {"slopes": self.slopes} if self.slopes else {}


def _learned_slope(block: nn.Module) -> float | None:
    """Return the slope of a layer; None for a layer without one, such as one whose FFN was dropped."""
    slopes = (part.slope.item() for part in block.modules() if isinstance(part, LearnableLeakyReLU))
    return finite_or_none(next(slopes, float("nan")))


class LearnedAlphas(Probe):
    """Alpha of every DyT and Derf, with 1 / std of its input, which alpha tracks (arXiv 2503.10622)."""

    def __init__(self) -> None:
        self.alphas: dict[str, float] = {}
        self.moments: dict[str, Tensor] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for path, module in model.named_modules():
            if isinstance(module, DyT):
                self.alphas[path] = module.alpha.item()
                yield module.register_forward_pre_hook(partial(self._add_moments, path))

    def _add_moments(self, path: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Add count, sum and sum of squares, which give the standard deviation over all batches."""
        x = args[0].double()
        moments = torch.stack([torch.full_like(x.sum(), x.numel()), x.sum(), x.square().sum()])
        self.moments[path] = self.moments.get(path, 0.0) + moments

    def result(self) -> dict[str, Any]:
        rows = [
            {"module": path, "alpha": finite_or_none(alpha), "inverse_std": _inverse_std(self.moments[path])}
            for path, alpha in self.alphas.items()
        ]
        return {"alphas": rows} if rows else {}


def _inverse_std(moments: Tensor) -> float | None:
    """Return 1 / std from a count, a sum and a sum of squares (3,)."""
    count, total, squares = moments.unbind()
    return finite_or_none((squares / count - (total / count).square()).rsqrt().item())


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
