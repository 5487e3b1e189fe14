"""The choice of the next token from logits, by the client alone: the most probable one, or a random one of a seed."""

import torch
from pydantic import Field
from torch import Tensor

from pi_sim.errors import RunError
from pi_sim.specs.toml import TomlModel


class Sampling(TomlModel):
    """Settings of the choice: temperature 0 takes the most probable token."""

    temperature: float = Field(default=0.0, ge=0, le=100)
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Random tokens are those that hold this much of the probability together, the most probable ones first."""
    seed: int = Field(default=0, ge=0, lt=2**63)


class Sampler:
    """Choice of tokens one after another; the same logits give the same tokens."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.generator = torch.Generator().manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> int:
        """Return the next token, given its logits (V); a `RunError` if they are not finite."""
        if not logits.isfinite().all():
            raise RunError("the logits of the next token are not finite; check the weights of the model.")
        if not self.sampling.temperature:
            return int(logits.argmax())
        below_largest = logits.double().cpu() - logits.max().item()  # no temperature makes these overflow
        probabilities, tokens = (below_largest / self.sampling.temperature).softmax(-1).sort(descending=True)
        before = probabilities.cumsum(-1) - probabilities
        kept = probabilities.where(before < self.sampling.top_p, 0.0)
        return int(tokens[torch.multinomial(kept, 1, generator=self.generator)])
