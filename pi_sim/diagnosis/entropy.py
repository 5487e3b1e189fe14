"""How evenly each attention head looks around: the Shannon entropy of its probabilities, in nats."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pi_sim.diagnosis import places
from pi_sim.diagnosis.probe import Probe, numbers
from pi_sim.errors import UsageError

OVERLOAD = 0.9
"""A head whose entropy is above this share of its maximum looks everywhere alike: entropic overload.

The notion is that of "ReLU's Revival" (arXiv 2410.09637) and AERO (arXiv 2410.13060); "Entropy-guided attention"
(arXiv 2501.03489) draws the line near 0.9 of the maximum.
"""
COLLAPSE = 0.1
"""A head below this share looks at one place only: entropy collapse, near zero in the same papers."""
ELEMENTS = 2**22
"""Probabilities whose logarithms are held at a time."""

Heads = list[float | None]


class Entropy(Probe):
    """Mean entropy of each head over sequences and queries, alone and as a share of its maximum.

    A query that sees t keys has an entropy of at most log t; one that sees a single key has no share. Without padding
    query t of a causal model sees t keys, counted from one.
    """

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}
        self.sequences: dict[int, int] = {}

    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        for layer, (_, module) in enumerate(places.attentions(model)):
            yield module.register_forward_hook(partial(self._see, layer))

    def _see(self, layer: int, module: nn.Module, args: Any, output: Any) -> None:
        probabilities = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if probabilities is None:
            raise UsageError(f"{type(module).__name__} does not return its probabilities; use eager attention.")
        self.sums[layer] = self.sums.get(layer, 0.0) + _by_head(probabilities)
        self.sequences[layer] = self.sequences.get(layer, 0) + len(probabilities)

    def found(self) -> dict[str, Any]:
        means = [self.sums[layer] / self.sequences[layer] for layer in sorted(self.sums)]
        shares = [numbers(mean[1]) for mean in means]
        return {
            "entropy": [numbers(mean[0]) for mean in means],
            "entropy_share": shares,
            "overload": part(shares, overloaded),
            "collapse": part(shares, collapsed),
        }


def entropies(probabilities: Tensor) -> Tensor:
    """-sum p log p over the keys of (B, H, T, K) probabilities: (B, H, T) in nats, with 0 log 0 = 0.

    Walks over blocks of queries: nothing of the size of a whole attention matrix is made.
    """
    queries = max(1, ELEMENTS // max(1, probabilities[:, :, :1].numel()))
    blocks = torch.split(probabilities, queries, dim=2)
    return torch.cat([torch.special.entr(block.float()).sum(-1) for block in blocks], dim=-1)


def _by_head(probabilities: Tensor) -> Tensor:
    """Each head's entropy and share (2, H), a mean over queries and a sum over the sequences of (B, H, T, T)."""
    entropy = entropies(probabilities).double()
    visible = torch.arange(1, entropy.shape[-1] + 1, device=entropy.device)
    share = entropy[..., 1:] / visible[1:].log()
    return torch.stack([entropy.mean(-1).sum(0), share.mean(-1).sum(0)])


def part(shares: list[Heads], chosen: Callable[[float], bool]) -> float:
    """The part of all heads whose share of the maximum entropy is so; that of a head with NaN never is."""
    heads = [share for layer in shares for share in layer]
    return sum(share is not None and chosen(share) for share in heads) / len(heads)


def overloaded(share: float) -> bool:
    """Whether a head with that share of its maximum entropy looks everywhere alike."""
    return share > OVERLOAD


def collapsed(share: float) -> bool:
    """Whether it looks at one place only."""
    return share < COLLAPSE
