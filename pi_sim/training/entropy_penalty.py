"""AERO's entropy regularization: keeps the attention entropy of each head away from its maximum and from zero.

Source: "Entropy-Guided Attention for Private LLMs" (arXiv 2501.03489), algorithm 1, and its authors' code
(Nandan91/entropy-guided-attention-llm, entropy_regularization.py); AERO (arXiv 2410.13060).
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from pi_sim.specs import Recipe
from pi_sim.zoo import modules
from pi_sim.zoo.scales import ScaledModel

INITIAL_THRESHOLD = 0.5
"""Initial threshold of each head, as a share of the maximum entropy."""
LOG_EPSILON = 1e-9
"""Keeps the logarithm of a zero probability, and its gradient, finite."""


def make_trainable(model: PreTrainedModel, recipe: Recipe) -> ScaledModel:
    """Return the model with the recipe's two scales and its dropout, and with the entropy penalty if it has one."""
    dropout = 0.0 if hasattr(model.config, "embd_pdrop") else recipe.embedding_dropout  # GPT-2 has its own
    scales = recipe.embedding_scale, recipe.logit_scale, dropout
    if not recipe.entropy_penalty:
        return ScaledModel(model, *scales)
    return EntropyPenalized(model, *scales, weight=recipe.entropy_penalty, margin=recipe.entropy_margin)


class EntropyPenalized(ScaledModel):
    """Model whose training loss includes the squared deviation of its heads' entropies from their thresholds.

    loss + weight * mean over layers and heads of sum of delta^2 where |delta| > margin log T, delta = E -
    threshold log T; E is the entropy in nats of a head for one query. As in the authors' code, whose weight is 1e-5,
    the sum is over all queries of all sequences in a batch. The thresholds (L, H) are learned; like the two scales,
    they are gone once the model is folded.
    """

    def __init__(self, model: PreTrainedModel, *scales: Any, weight: float, margin: float) -> None:
        super().__init__(model, *scales)
        self.weight, self.margin = weight, margin
        shape = model.config.num_hidden_layers, model.config.num_attention_heads
        self.threshold = nn.Parameter(torch.full(shape, INITIAL_THRESHOLD))

    def forward(self, input_ids: Tensor) -> CausalLMOutput:
        """Return the output of `ScaledModel`; in training mode the penalty is added to its loss."""
        if not self.training:
            return super().forward(input_ids)
        with self._collect_entropies() as entropies:
            output = super().forward(input_ids)
        output.loss = output.loss + self.weight * self._penalty(torch.stack(entropies), input_ids.shape[1])
        return output

    def _penalty(self, entropies: Tensor, length: int) -> Tensor:
        """Return the unweighted penalty of entropies (L, B, H, T)."""
        maximum = math.log(length)
        delta = entropies - self.threshold[:, None, :, None] * maximum
        return torch.where(delta.abs() > self.margin * maximum, delta.square(), 0.0).sum((1, 3)).mean()

    @contextmanager
    def _collect_entropies(self) -> Iterator[list[Tensor]]:
        """Collect each layer's entropies (B, H, T) as its attention runs."""
        entropies: list[Tensor] = []

        def append_entropy(module: nn.Module, inputs: Any, output: Any) -> None:
            probabilities = output[1].float()  # (B, H, T, T)
            entropies.append(-(probabilities * (probabilities + LOG_EPSILON).log()).sum(-1))

        with ExitStack() as hooks:
            for _, module in modules.attention_modules(self.model):
                hooks.callback(module.register_forward_hook(append_entropy).remove)
            yield entropies
