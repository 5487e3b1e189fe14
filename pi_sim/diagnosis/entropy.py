"""How evenly each attention head looks around: the Shannon entropy of its probabilities, in nats."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pi_sim.diagnosis.hooks import Probe, finite_values
from pi_sim.errors import UsageError
from pi_sim.zoo import modules

OVERLOAD = 0.9
"""A head whose entropy is above this share of its maximum looks everywhere alike: entropic overload.

The notion is that of "ReLU's Revival" (arXiv 2410.09637) and AERO (arXiv 2410.13060); "Entropy-guided attention"
(arXiv 2501.03489) draws the line near 0.9 of the maximum.
"""
COLLAPSE = 0.1
"""A head below this share looks at one place only: entropy collapse, near zero in the same papers."""
MASKED_BELOW = -1e4
"""Masks are added to the scores; below this they hide a key."""
BLOCK_ELEMENTS = 2**22
"""Probabilities whose logarithms are held at a time."""

HeadShares = list[float | None]


class EntropyProbe(Probe):
    """Mean entropy of each head over sequences and queries, alone and as a share of its maximum.

    A query that may see t keys has an entropy of at most log t; one that may see a single key has no share. What it may
    see is what the mask says that the attention is given.
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
        visible = _visible_keys(probabilities, _attention_mask(module, args, kwargs))
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
    """-sum p log p over the keys of (B, H, T, K) probabilities: (B, H, T) in nats, with 0 log 0 = 0.

    Walks over blocks of queries: nothing of the size of a whole attention matrix is made.
    """
    queries = max(1, BLOCK_ELEMENTS // max(1, probabilities[:, :, :1].numel()))
    blocks = torch.split(probabilities, queries, dim=2)
    return torch.cat([torch.special.entr(block.float()).sum(-1) for block in blocks], dim=-1)


def _attention_mask(module: nn.Module, args: Any, kwargs: Any) -> Tensor | None:
    """The mask (B, 1, T, K) that a module was called with, under the name that all families give it."""
    mask: Tensor | None = inspect.signature(module.forward).bind(*args, **kwargs).arguments.get("attention_mask")
    return mask


def _visible_keys(probabilities: Tensor, mask: Tensor | None) -> Tensor:
    """How many keys each query of (B, H, T, K) probabilities may see: (B, 1, T), or (T).

    Counting the probabilities above zero would take a key for hidden whose exponential underflows. Without a mask a
    query sees all keys if the first one sees any but its own, and those up to its own otherwise.
    """
    queries, keys = probabilities.shape[-2:]
    if mask is not None:
        return (mask[..., :keys] > MASKED_BELOW).sum(-1)
    ahead = bool((probabilities[:, :, 0, keys - queries + 1 :] > 0).any())
    seen = torch.arange(keys - queries + 1, keys + 1, device=probabilities.device)
    return torch.full_like(seen, keys) if ahead else seen


def _sum_by_head(probabilities: Tensor, visible: Tensor) -> Tensor:
    """Each head's entropy and share (2, H), a mean over queries and a sum over the sequences of (B, H, T, K)."""
    entropy = attention_entropy(probabilities).double()
    several = visible > 1
    shares = torch.where(several, entropy / visible.clamp(min=2).log(), 0.0)
    share = shares.sum(-1) / several.sum(-1)
    return torch.stack([entropy.mean(-1).sum(0), share.sum(0)])


def head_fraction(shares: list[HeadShares], chosen: Callable[[float], bool]) -> float:
    """The part of all heads whose share of the maximum entropy is so; that of a head with NaN never is."""
    heads = [share for layer in shares for share in layer]
    return sum(share is not None and chosen(share) for share in heads) / len(heads)


def is_overloaded(share: float) -> bool:
    """Whether a head with that share of its maximum entropy looks everywhere alike."""
    return share > OVERLOAD


def is_collapsed(share: float) -> bool:
    """Whether it looks at one place only."""
    return share < COLLAPSE
