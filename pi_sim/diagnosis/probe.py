"""Probes: what is learned from the tensors that pass through a model, batch by batch, without keeping any of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from pi_sim.zoo.scales import ScaledModel


class Probe(ABC):
    """Hooks on some modules of a model, and what they found."""

    @abstractmethod
    def attach(self, model: nn.Module) -> Iterator[RemovableHandle]:
        """Place the hooks; each reduces what it sees at once."""

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """JSON values: null stands for what is no finite number."""


@torch.no_grad()
def run_probes(model: nn.Module, batches: Iterable[Tensor], probes: list[Probe]) -> dict[str, Any]:
    """What the probes find while the model, in evaluation mode, reads batches of token ids (B, T).

    Draws no random numbers, and leaves the model in the mode that it was in.
    """
    training, inner = model.training, model.model if isinstance(model, ScaledModel) else model
    options = {"use_cache": False} if isinstance(model, PreTrainedModel) else {}
    with ExitStack() as stack:
        for probe in probes:
            for handle in probe.attach(inner):
                stack.callback(handle.remove)
        stack.callback(model.train, training)
        model.eval()
        for batch in batches:
            model(batch, **options)
    return {key: value for probe in probes for key, value in probe.result().items()}


def first_output(output: Any) -> Tensor:
    """The hidden states among a block's outputs."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def finite_or_none(value: float) -> float | None:
    """A number that JSON can hold."""
    return value if math.isfinite(value) else None


def finite_values(tensor: Tensor) -> list[float | None]:
    """Those of a vector."""
    return [finite_or_none(value) for value in tensor.tolist()]
