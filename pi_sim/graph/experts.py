"""Mixtures of experts, evaluated obliviously: every expert reads every token, and secret weights choose among them.

Which experts a token takes would tell of the text. So the router's `topk` becomes a selection S (..., k, E) of ones and
zeros: the rank of a score is the number of larger ones, found by comparisons of all pairs, and S[j, e] tells whether
score e has rank j. The router computes on S @ scores, the largest scores in order; an expert's weight is the sum of
those at its ranks.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

STEEPNESS = 1000
"""Scores that differ by less than 1 / STEEPNESS count as partly equal; their differences must stay below 32."""
EXPERT_WEIGHTS = ("gate_up_proj", "down_proj")
"""Weights (E, ...) of all experts, as transformers stores them since version 5."""


def select_largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of scores (..., E) in order, and the selection (..., k, E) that takes them.

    Of equal scores the first one is larger, as in torch.
    """
    count = scores.shape[-1]
    differences = (scores.unsqueeze(-2) - scores.unsqueeze(-1)) * STEEPNESS  # (..., e, j): by how much j exceeds e
    earlier = torch.ones(count, count, device="cpu").tril(-1)
    is_larger = (differences + earlier).clamp(0, 1) * (1 - torch.eye(count, device="cpu"))
    rank = is_larger.sum(-1)
    reached = [(rank - (position - 1)).clamp(0, 1) for position in range(k + 1)]  # 1 where the rank is at least so high
    selection = torch.stack([reached[position] - reached[position + 1] for position in range(k)], -2)
    return (selection * scores.unsqueeze(-2)).sum(-1), selection


class ObliviousTopK(TorchFunctionMode):
    """Context in which `torch.topk` returns a selection in place of indices; only experts may read that."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (torch.topk, Tensor.topk):
            return func(*args, **(kwargs or {}))
        self.calls += 1
        k = args[1] if len(args) > 1 else (kwargs or {})["k"]
        return select_largest(args[0], k)


def has_experts(module: nn.Module) -> bool:
    """Return whether a module holds the weights of all experts, each a gated map of two layers without biases."""
    shapes = {name: parameter.dim() for name, parameter in module.named_parameters(recurse=False)}
    return shapes == dict.fromkeys(EXPERT_WEIGHTS, 3)


def oblivious_forward(module: Any) -> Callable[..., Tensor]:
    """Return a `forward` that evaluates all experts: tokens (T, d), selection (T, k, E), weights (T, k) -> (T, d)."""

    def forward(tokens: Tensor, selection: Tensor, weights: Tensor) -> Tensor:
        chosen = (selection * weights.unsqueeze(-1)).sum(-2)  # weight of each expert, zero for most
        outputs = [
            _evaluate_expert(module, tokens, expert) * chosen[:, expert : expert + 1]
            for expert in range(module.gate_up_proj.shape[0])
        ]
        return torch.stack(outputs).sum(0)

    return forward


def _evaluate_expert(module: Any, tokens: Tensor, expert: int) -> Tensor:
    gate, up = functional.linear(tokens, module.gate_up_proj[expert]).chunk(2, dim=-1)
    return functional.linear(module.act_fn(gate) * up, module.down_proj[expert])
