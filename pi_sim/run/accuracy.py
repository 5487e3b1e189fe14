"""Accuracy of a private run: private logits against plain ones, and kernels outside of their domains."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from pi_sim.graph import reference
from pi_sim.graph.ops import Graph
from pi_sim.mpc.kernels import Domain, Kernel, kernel_for
from pi_sim.mpc.party import CPU
from pi_sim.records import Agreement, Perplexity, PerplexityPair
from pi_sim.specs import ExecutableProtocol

CORRUPTED = 1000.0
"""Error of a logit that makes its position corrupted: approximations err by fractions, a failed truncation by 2^32."""


def domain_warnings(
    graph: Graph, model: PreTrainedModel, protocol: ExecutableProtocol, tokens: Tensor
) -> Iterator[str]:
    """Yield a sentence for every kernel whose plain operands leave its domain on these tokens (N, T)."""
    ranges: dict[tuple[Kernel, Domain], tuple[float, float]] = {}
    for sequence in tokens:
        for node, operands, _ in reference.evaluate(graph, model.state_dict(), sequence[None]):
            kernel = kernel_for(node.op.name, protocol.kernels, protocol.name)
            for domain in kernel.domains:
                values = domain.statistic(*operands)
                low, high = ranges.get((kernel, domain), (math.inf, -math.inf))
                ranges[kernel, domain] = (min(low, values.min().item()), max(high, values.max().item()))
    for (kernel, domain), (low, high) in ranges.items():
        if low < domain.low or high > domain.high:
            yield (
                f"{kernel.op} by {kernel.name} is accurate for {domain.quantity} from {domain.low:g} to "
                f"{domain.high:g}; here it ranges from {low:.3g} to {high:.3g}, so expect inexact logits."
            )


def model_logits(model: PreTrainedModel, tokens: Tensor, device: str = CPU) -> Tensor:
    """Return the plain logits (N, T, V) of tokens (N, T), sequence by sequence, on the CPU."""
    model.to(device)
    with torch.no_grad():
        return torch.cat([model(ids[None], use_cache=False).logits.cpu() for ids in tokens.to(device)])


def compare_logits(expected: Tensor | None, private: Tensor, tokens: Tensor) -> tuple[Perplexity, Agreement | None]:
    """Return perplexities on tokens (N, T), and the agreement of private logits (N, T, V) with the plain ones.

    A position is corrupted if the error of a logit is larger than approximation explains; if there are any, both
    perplexities without them are returned too. Without `expected` there is no agreement.
    """
    overall = perplexity(private, tokens)
    if expected is None:
        return Perplexity(private=overall), None
    difference = (private - expected).abs()
    corrupted = difference.amax(-1) > CORRUPTED
    clean = None
    if corrupted.any():
        plain, rest = (perplexity(logits, tokens, ~corrupted) for logits in (expected, private))
        clean = PerplexityPair(plain=plain, private=rest)
    agreement = Agreement(
        max_abs=difference.max().item(),
        mean_abs=difference.mean().item(),
        top1=(private.argmax(-1) == expected.argmax(-1)).double().mean().item(),
        corrupted_positions=int(corrupted.sum()),
    )
    return Perplexity(plain=perplexity(expected, tokens), private=overall, excluding_corrupted=clean), agreement


def perplexity(logits: Tensor, tokens: Tensor, selection: Tensor | None = None) -> float | None:
    """Return exp of the mean negative log-likelihood of tokens (N, T) given logits (N, T, V).

    `selection` (N, T) is True at positions whose prediction of the next token counts. None if there is no such
    position, or if the perplexity is too large for a float.
    """
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), tokens[:, 1:].flatten(), reduction="none")
    if selection is not None:
        losses = losses[selection[:, :-1].flatten()]
    loss = losses.mean().item()
    return math.exp(loss) if loss < 700 else None
