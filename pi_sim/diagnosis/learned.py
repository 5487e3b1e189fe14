"""What activations and norm substitutes learned: the slopes of leaky ReLUs, the alphas of DyT and Derf."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pi_sim.diagnosis import places
from pi_sim.diagnosis.probe import Probe, finite_or_none
from pi_sim.zoo.layers import DyT, LearnableLeakyReLU


class LearnedSlopes(Probe):
    """The learned slope for negative inputs in each layer ("ReLU's Revival", arXiv 2410.09637); nothing to see."""

    def __init__(self) -> None:
        self.slopes: list[float | None] = []

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        found = [_learned_slope(block) for _, block in places.block_modules(model)]
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
