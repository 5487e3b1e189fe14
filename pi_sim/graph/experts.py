"""Mixtures of experts without a trace of the choice: all experts are evaluated, and secret bits select their results.

Which experts a token goes to is secret, so a protocol may not skip the others. The router's k largest numbers are
selected by comparing all pairs: an expert is among them if fewer than k others beat it. Every step is an operation of
the vocabulary.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SHARPNESS = 4096.0
"""Factor of a difference before it is clamped to [0, 1]: numbers that differ by less than its inverse share a place."""
EXPERT_WEIGHTS = {"gate_up_proj", "down_proj"}
"""Weights of all experts together, (E, 2 f, d) and (E, d, f), as transformers stacks them."""


class ObliviousTopK(TorchFunctionMode):
    """Mode in which `topk` over the last dimension is a selection by secret bits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.topk, Tensor.topk):
            return _select_from(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _select_from(x: Tensor, k: int, dim: int = -1, largest: bool = True, **_: Any) -> tuple[Tensor, Tensor]:
    """Return the k largest numbers (..., k) and their indices, which hold their one-hot vectors too."""
    if dim not in (-1, x.dim() - 1) or not largest:
        raise ValueError("topk is supported for the largest numbers of the last dimension")
    selection = select_largest(x, k)
    indices: Any = (selection * torch.arange(x.shape[-1], device=x.device)).sum(-1)
    indices.selection = selection
    return (selection * x.unsqueeze(-2)).sum(-1), indices


def select_largest(x: Tensor, k: int) -> Tensor:
    """Return the one-hot vectors (..., k, E) of the k largest of E numbers, in descending order."""
    count = x.shape[-1]
    wins = ((x.unsqueeze(-1) - x.unsqueeze(-2)) * SHARPNESS).clamp(0, 1)  # (..., E, E): the first beats the second
    wins = wins * torch.ones(count, count, device=x.device).triu(1)  # each pair once, also if both are equal
    losses = wins.sum(-2) - wins.sum(-1) + torch.arange(count - 1, -1, -1, device=x.device)
    best = [(place - losses).clamp(0, 1) for place in range(1, k + 1)]  # 1 for the first `place` of them
    return torch.stack([best[0], *(more - fewer for fewer, more in pairwise(best))], -2)


def is_experts(module: nn.Module) -> bool:
    """Return whether a module holds the stacked weights of experts whose FFN is gated."""
    weights = {name: weight.dim() for name, weight in module.named_parameters(recurse=False)}
    return weights == dict.fromkeys(EXPERT_WEIGHTS, 3) and hasattr(module, "act_fn")


def evaluate_experts(module: Any, hidden: Tensor, indices: Any, weights: Tensor) -> Tensor:
    """Return the weighted sum (N, d) of the selected experts' results for tokens (N, d)."""
    selection = getattr(indices, "selection", None)
    if selection is None:
        raise ValueError("the router changes the indices of its largest numbers, which is not supported")
    shares = (selection * weights.unsqueeze(-1)).sum(-2)  # (N, E), zeros but for the selected
    results = []
    for expert, share in enumerate(shares.split(1, -1)):
        gate, value = functional.linear(hidden, module.gate_up_proj[expert]).chunk(2, -1)
        results.append(functional.linear(module.act_fn(gate) * value, module.down_proj[expert]) * share)
    return torch.stack(results).sum(0)
