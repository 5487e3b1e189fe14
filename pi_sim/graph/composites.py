"""Modules that transformers writes out step by step although torch has one operation for them.

A protocol may have a better algorithm for the whole than for its steps, so the graph shows the whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def _gelu(module: nn.Module, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def _rmsnorm(module: Any, x: Tensor) -> Tensor:
    return functional.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)


WHOLES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "NewGELUActivation": _gelu,
    "LlamaRMSNorm": _rmsnorm,
    "MistralRMSNorm": _rmsnorm,
    "Qwen2RMSNorm": _rmsnorm,
    "Qwen3RMSNorm": _rmsnorm,
}
"""By the module's class; a norm must be listed by name, for some multiply by 1 + weight."""


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Let the listed modules of `model` compute by torch's one operation."""
    listed = [module for module in model.modules() if type(module).__name__ in WHOLES]
    for module in listed:
        module.forward = partial(WHOLES[type(module).__name__], module)
    try:
        yield
    finally:
        for module in listed:
            del module.forward
