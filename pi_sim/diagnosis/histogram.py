"""How the inputs of activations are distributed: counts in fixed bins, never the numbers themselves."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pi_sim.diagnosis.probe import Probe
from pi_sim.zoo import anatomy

HISTOGRAM_BINS = 96
"""An even number: zero is an edge."""
HISTOGRAM_DEVIATIONS = 4
"""How far the bins reach, in standard deviations of the first batch."""


class PreActivationProbe(Probe):
    """A histogram of the inputs of each activation; the first batch decides how far its bins reach from zero."""

    def __init__(self) -> None:
        self.histograms: dict[str, Histogram] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for path in anatomy.activation_paths(model):
            yield model.get_submodule(path).register_forward_pre_hook(partial(self._add_inputs, path))

    def _add_inputs(self, path: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].float()
        if path not in self.histograms:
            self.histograms[path] = Histogram(_histogram_reach(x))
        self.histograms[path].add(x)

    def result(self) -> dict[str, Any]:
        found = self.histograms.items()
        rows = [{"module": path, "layer": anatomy.layer_index(path), **each.to_json()} for path, each in found]
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
