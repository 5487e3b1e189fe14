"""What privacy did to the result: private logits against plain ones, and where kernels left their domains."""

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
"""A logit off by more than this is corrupted: approximations are off by fractions, a failed truncation by 2^32."""


def domain_warnings(
    graph: Graph, model: PreTrainedModel, protocol: ExecutableProtocol, tokens: Tensor
) -> Iterator[str]:
    """A sentence for every kernel whose plain operands leave a domain of its on these tokens (N, T)."""
    seen: dict[tuple[Kernel, Domain], tuple[float, float]] = {}
    for sequence in tokens:
        for node, operands, _ in reference.evaluate(graph, model.state_dict(), sequence[None]):
            kernel = kernel_for(node.op.name, protocol.kernels, protocol.name)
            for domain in kernel.domains:
                values = domain.statistic(*operands)
                low, high = seen.get((kernel, domain), (math.inf, -math.inf))
                seen[kernel, domain] = (min(low, values.min().item()), max(high, values.max().item()))
    for (kernel, domain), (low, high) in seen.items():
        if low < domain.low or high > domain.high:
            yield (
                f"{kernel.op} by {kernel.name} is right for {domain.quantity} from {domain.low:g} to {domain.high:g}; "
                f"here it runs from {low:.3g} to {high:.3g}, so expect inexact logits."
            )


def model_logits(model: PreTrainedModel, tokens: Tensor, device: str = CPU) -> Tensor:
    """What the model itself makes of tokens (N, T), one sequence after another: (N, T, V), on the processor."""
    model.to(device)
    with torch.no_grad():
        return torch.cat([model(ids[None], use_cache=False).logits.cpu() for ids in tokens.to(device)])


def compare_logits(expected: Tensor | None, private: Tensor, tokens: Tensor) -> tuple[Perplexity, Agreement | None]:
    """Return perplexities on the same tokens (N, T), and how far private logits (N, T, V) are from the plain ones.

    Positions are corrupted where some logit is off by more than approximation can explain; where there are any, both
    perplexities without them are returned too. Without `expected` there is nothing to agree with.
    """
    overall = perplexity(private, tokens)
    if expected is None:
        return Perplexity(private=overall), None
    difference = (private - expected).abs()
    corrupted = difference.amax(-1) > CORRUPTED
    others = None
    if corrupted.any():
        plain, rest = (perplexity(logits, tokens, ~corrupted) for logits in (expected, private))
        others = PerplexityPair(plain=plain, private=rest)
    agreement = Agreement(
        max_abs=difference.max().item(),
        mean_abs=difference.mean().item(),
        top1=(private.argmax(-1) == expected.argmax(-1)).double().mean().item(),
        corrupted_positions=int(corrupted.sum()),
    )
    return Perplexity(plain=perplexity(expected, tokens), private=overall, excluding_corrupted=others), agreement


def perplexity(logits: Tensor, tokens: Tensor, kept: Tensor | None = None) -> float | None:
    """exp of the mean negative log-likelihood of tokens (N, T) given logits (N, T, V); None beyond all numbers.

    `kept` (N, T) says from which places a next token is predicted; None too if from none.
    """
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), tokens[:, 1:].flatten(), reduction="none")
    if kept is not None:
        losses = losses[kept[:, :-1].flatten()]
    loss = losses.mean().item()
    return math.exp(loss) if loss < 700 else None
