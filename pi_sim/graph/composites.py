"""Fusion of modules that are written in single steps although torch has one operation for them.

A protocol may have a better algorithm for the operation than for its steps, so the graph holds the operation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FusedForward = Callable[[Tensor], Tensor]


def _gelu_sigmoid(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the coarser approximation of GELU in arXiv 1606.08415, section 2."""
    return functional.silu(1.702 * x) / 1.702


_gelu_tanh = partial(functional.gelu, approximate="tanh")

ACTIVATION_FORWARDS: dict[str, FusedForward] = {
    "GELUActivation": functional.gelu,
    "GELUTanh": _gelu_tanh,
    "NewGELUActivation": _gelu_tanh,
    "FastGELUActivation": _gelu_tanh,
    "AccurateGELUActivation": _gelu_tanh,
    "QuickGELUActivation": _gelu_sigmoid,
}
"""Activations by the module's class in transformers."""

NormForward = Callable[[Tensor, Tensor, float | None], Tensor]

NORM_FORWARDS: tuple[NormForward, ...] = (
    lambda x, weight, eps: functional.rms_norm(x, weight.shape, weight, eps),
    lambda x, weight, eps: functional.rms_norm(x, weight.shape, 1 + weight, eps),
    lambda x, weight, eps: functional.layer_norm(x, weight.shape, weight, None, eps or 0.0),
)
"""Norms with a weight and no bias. The second is Gemma's, whose gain is 1 + weight."""


@contextmanager
def fuse_composites(model: nn.Module) -> Iterator[None]:
    """Let the modules of `model` that torch has one operation for compute by it."""
    fused = {module: forward for module in model.modules() if (forward := _fused_forward(module))}
    for module, function in fused.items():
        module.forward = function
    try:
        yield
    finally:
        for module in fused:
            del module.forward


def _fused_forward(module: nn.Module) -> FusedForward | None:
    """Return torch's function for a module, if there is one."""
    name = type(module).__name__
    if name.endswith("Norm") and {parameter for parameter, _ in module.named_parameters()} == {"weight"}:
        return _fused_norm(module)
    return ACTIVATION_FORWARDS.get(name)


def _fused_norm(module: Any) -> FusedForward | None:
    """Return the form of norm that a module has: class names do not tell it, so the forms are compared on numbers."""
    eps = next((vars(module)[name] for name in ("variance_epsilon", "eps", "epsilon") if name in vars(module)), None)
    form = next((norm for norm in NORM_FORWARDS if _matches_norm(module, norm, eps)), None)
    return form and (lambda x: form(x, module.weight, eps))


def _matches_norm(module: nn.Module, form: NormForward, eps: float | None) -> bool:
    """Return whether module and form agree on a row of usual size and on one so small that eps matters."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(module.get_parameter("weight").shape, generator=generator)
    x = torch.randn(2, *weight.shape, generator=generator) * torch.tensor([[1.0], [1e-3]])
    try:
        with torch.no_grad():
            expected = torch.func.functional_call(module, {"weight": weight}, (x,))
            return torch.allclose(expected, form(x, weight, eps), rtol=1e-4, atol=1e-6)
    except Exception:  # a module of this name may need other arguments, and is no norm of x alone then
        return False
