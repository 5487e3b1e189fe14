"""Attention entropy: Shannon entropy, in nats, of the probabilities of each attention head."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pi_sim.diagnosis.hooks import Probe, finite_values
from pi_sim.errors import UsageError
from pi_sim.zoo import modules

OVERLOAD = 0.9
"""Share of the maximum entropy above which a head attends almost uniformly: entropic overload.

The notion is from "ReLU's Revival" (arXiv 2410.09637) and AERO (arXiv 2410.13060); "Entropy-guided attention"
(arXiv 2501.03489) draws the line near 0.9 of the maximum.
"""
COLLAPSE = 0.1
"""Share of the maximum below which a head attends to one position: entropy collapse, near zero in the same papers."""
MASKED_BELOW = -1e4
"""Value of an additive mask below which it hides a key."""
BLOCK_ELEMENTS = 2**22
"""Probabilities per block, which bounds the memory for their logarithms."""

HeadShares = Sequence[float | None]


class EntropyProbe(Probe):
    """Mean entropy of each head over sequences and queries, in nats and as a share of its maximum.

    A query with t visible keys has an entropy of at most log t; one with a single visible key has no share. The
    attention's mask decides which keys are visible.
    """

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}
        self.sequences: dict[int, int] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for layer, (_, module) in enumerate(modules.attention_modules(model)):
            yield module.register_forward_hook(partial(self._add_attention, layer), with_kwargs=True)

    def _add_attention(self, layer: int, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        probabilities = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if probabilities is None:
            raise UsageError(f"{type(module).__name__} does not return its probabilities; use eager attention.")
        arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        visible = _visible_keys(probabilities, arguments.get("attention_mask"))
        self.sums[layer] = self.sums.get(layer, 0.0) + _sum_by_head(probabilities, visible)
        self.sequences[layer] = self.sequences.get(layer, 0) + len(probabilities)

    def result(self) -> dict[str, Any]:
        means = [self.sums[layer] / self.sequences[layer] for layer in sorted(self.sums)]
        shares = [finite_values(mean[1]) for mean in means]
        return {
            "entropy": [finite_values(mean[0]) for mean in means],
            "entropy_share": shares,
            "overload": head_fraction(shares, is_overloaded),
            "collapse": head_fraction(shares, is_collapsed),
        }


def attention_entropy(probabilities: Tensor) -> Tensor:
    """Return -sum p log p over the keys of (B, H, T, K) probabilities: (B, H, T) in nats, with 0 log 0 = 0.

    Computes in blocks of queries, so that no tensor of the size of an attention matrix is allocated.
    """
    queries = max(1, BLOCK_ELEMENTS // max(1, probabilities[:, :, :1].numel()))
    blocks = torch.split(probabilities, queries, dim=2)
    return torch.cat([torch.special.entr(block.float()).sum(-1) for block in blocks], dim=-1)


def _visible_keys(probabilities: Tensor, mask: Tensor | None) -> Tensor:
    """Return the number of visible keys of each query of (B, H, T, K) probabilities: (B, 1, T), or (T).

    Counting the nonzero probabilities would miss a visible key whose exponential underflows. Without a mask
    (B, 1, T, K), all keys are visible if the first query attends to any but its own, and otherwise those up to the
    query's own.
    """
    queries, keys = probabilities.shape[-2:]
    if mask is not None:
        return (mask[..., :keys] > MASKED_BELOW).sum(-1)
    ahead = bool((probabilities[:, :, 0, keys - queries + 1 :] > 0).any())
    causal = torch.arange(keys - queries + 1, keys + 1, device=probabilities.device)
    return torch.full_like(causal, keys) if ahead else causal


def _sum_by_head(probabilities: Tensor, visible: Tensor) -> Tensor:
    """Return each head's entropy and share (2, H), a mean over queries and a sum over sequences, of (B, H, T, K)."""
    entropy = attention_entropy(probabilities).double()
    several = visible > 1
    shares = torch.where(several, entropy / visible.clamp(min=2).log(), 0.0)
    share = shares.sum(-1) / several.sum(-1)
    return torch.stack([entropy.mean(-1).sum(0), share.sum(0)])


def head_fraction(shares: Sequence[HeadShares], predicate: Callable[[float], bool]) -> float:
    """Return the fraction of all heads whose share of the maximum entropy satisfies the predicate; NaN never does."""
    heads = [share for layer in shares for share in layer]
    return sum(share is not None and predicate(share) for share in heads) / len(heads)


def is_overloaded(share: float) -> bool:
    """Return True for the share of a head that attends almost uniformly."""
    return share > OVERLOAD


def is_collapsed(share: float) -> bool:
    """Return True for the share of a head that attends to one position."""
    return share < COLLAPSE
