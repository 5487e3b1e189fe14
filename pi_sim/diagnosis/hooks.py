"""Probes: what is learned from the tensors that pass through a model, batch by batch, without keeping any of them."""

# MERGED: Where numbers break: NaN and infinities in the output of each block.
# MERGED: How the inputs of activations are distributed: counts in fixed bins, never the numbers themselves.
# MERGED: What activations and norm substitutes learned: the slopes of leaky ReLUs, the alphas of DyT and Derf.

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
    """Hooks on some modules of a model, and what they found."""

    @abstractmethod
    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        """Place the hooks; each reduces what it sees at once."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """JSON values: null stands for what is no finite number."""


@torch.no_grad()
def run_probes(model: nn.Module, batches: Iterable[Tensor], probes: list[Probe]) -> dict[str, Any]:
    """What the probes find while the model, in evaluation mode, reads batches of token ids (B, T).

    Draws no random numbers, and leaves the model in the mode that it was in.
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
    """The hidden states among a block's outputs."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def finite_or_none(value: float) -> float | None:
    """A number that JSON can hold."""
    return value if math.isfinite(value) else None


def finite_values(tensor: Tensor) -> list[float | None]:
    """Those of a vector."""
    return [finite_or_none(value) for value in tensor.tolist()]


class NonFiniteCounts(Probe):
    """Counts of them over all places, by layer."""

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
        return {"non_finite": {kind: [int(seen[layer]) for layer in sorted(seen)] for kind, seen in counts.items()}}


HISTOGRAM_BINS = 96
"""An even number: zero is an edge."""
HISTOGRAM_DEVIATIONS = 4
"""How far the bins reach, in standard deviations of the first batch."""


class PreActivationProbe(Probe):
    """A histogram of the inputs of each activation; the first batch decides how far its bins reach from zero."""

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
        found = self.histograms.items()
        rows = [{"module": path, "layer": modules.layer_index(path), **each.to_json()} for path, each in found]
        return {"histograms": rows}


class Histogram:
    """Counts of numbers between -reach and reach, below and above; NaN is counted nowhere."""

    def __init__(self, reach: float) -> None:
        self.reach = reach
        self.counts: Tensor | int = 0
        self.negative = self.below = self.above = 0

    def add(self, x: Tensor) -> None:
        """Count some numbers."""
        self.counts = self.counts + torch.histc(x, HISTOGRAM_BINS, -self.reach, self.reach).long()
        self.negative += int((x < 0).sum())
        self.below += int((x < -self.reach).sum())
        self.above += int((x > self.reach).sum())

    def to_json(self) -> dict[str, Any]:
        """Equal bins from -reach to reach; `negative` is the share below zero, which a ReLU would make zeros."""
        counts = torch.as_tensor(self.counts).tolist()
        whole = sum(counts) + self.below + self.above
        negative = self.negative / whole if whole else 0.0
        return {"reach": self.reach, "counts": counts, "below": self.below, "above": self.above, "negative": negative}


def _histogram_reach(x: Tensor) -> float:
    """Some standard deviations around the mean; 1 where that is no finite number above zero."""
    reach = x.mean().abs().item() + HISTOGRAM_DEVIATIONS * x.std().item()
    return reach if math.isfinite(reach) and reach > 0 else 1.0


class LearnedSlopes(Probe):
    """The learned slope for negative inputs in each layer ("ReLU's Revival", arXiv 2410.09637); nothing to see."""

    def __init__(self) -> None:
        self.slopes: list[float | None] = []

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        found = [_learned_slope(block) for _, block in modules.block_modules(model)]
        self.slopes = found if any(slope is not None for slope in found) else []
        yield from ()

    def result(self) -> dict[str, Any]:
        return {"slopes": self.slopes} if self.slopes else {}


def _learned_slope(block: nn.Module) -> float | None:
    """None for a layer without one, such as one whose FFN was dropped."""
    slopes = (part.slope.item() for part in block.modules() if isinstance(part, LearnableLeakyReLU))
    return finite_or_none(next(slopes, float("nan")))


class LearnedAlphas(Probe):
    """alpha of every DyT and Derf beside 1 / std of all numbers in its input, which it follows (arXiv 2503.10622)."""

    def __init__(self) -> None:
        self.alphas: dict[str, float] = {}
        self.moments: dict[str, Tensor] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for path, module in model.named_modules():
            if isinstance(module, DyT):
                self.alphas[path] = module.alpha.item()
                yield module.register_forward_pre_hook(partial(self._add_moments, path))

    def _add_moments(self, path: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Count, sum and sum of squares: enough for a standard deviation over all batches."""
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
    """1 / std, of a count, a sum and a sum of squares."""
    count, total, squares = moments.unbind()
    return finite_or_none((squares / count - (total / count).square()).rsqrt().item())
