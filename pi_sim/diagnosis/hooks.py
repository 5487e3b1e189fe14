"""Probes: hooks that reduce the tensors of a forward pass, batch by batch, without storing them.

They count NaN and infinities in the output of each block, bin the inputs of activations, and read learned scalars: the
slopes of leaky ReLUs, the alphas of DyT and Derf.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
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
def run_probes(model: nn.Module, batches: Iterable[Tensor], probes: list[Probe]) -> dict[str, Any]:
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


def first_output(output: Any) -> Tensor:
    """Return the hidden states among a block's outputs."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def finite_or_none(value: float) -> float | None:
    """Return the number, or None for one that JSON cannot represent."""
    return value if math.isfinite(value) else None


def finite_values(tensor: Tensor) -> list[float | None]:
    """Return the elements of a vector as numbers for JSON."""
    return [finite_or_none(value) for value in tensor.tolist()]


class NonFiniteCounts(Probe):
    """Counts of NaN and infinities over all positions, by layer."""

    def __init__(self) -> None:
        self.nan: dict[int, Tensor] = {}
        self.inf: dict[int, Tensor] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for layer, (_, block) in enumerate(modules.block_modules(model)):
            yield block.register_forward_hook(partial(self._count, layer))

    def _count(self, layer: int, module: nn.Module, args: Any, output: Any) -> None:
        hidden = first_output(output)
        self.nan[layer] = self.nan.get(layer, 0) + hidden.isnan().sum()
        self.inf[layer] = self.inf.get(layer, 0) + hidden.isinf().sum()

    def result(self) -> dict[str, Any]:
        counts = {"nan": self.nan, "inf": self.inf}
        return {"non_finite": {kind: [int(total[layer]) for layer in sorted(total)] for kind, total in counts.items()}}


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
        rows = [
            {"module": path, "layer": modules.layer_index(path), **histogram.to_json()}
            for path, histogram in self.histograms.items()
        ]
        return {"histograms": rows}


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
