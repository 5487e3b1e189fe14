"""Recognition of activations and norms that a model writes out in steps, by the numbers that they compute.

Class names do not tell a function's form: a module is called on numbers, and its results are compared with those of
torch's functions. A protocol may have a better algorithm for a whole function than for its steps.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pi_sim.graph.ops import Shape

FusedForward = Callable[[Tensor], Tensor]

ACTIVATION_FORMS: tuple[FusedForward, ...] = (
    functional.gelu,
    partial(functional.gelu, approximate="tanh"),
    functional.silu,
    lambda x: functional.silu(1.702 * x) / 1.702,  # arXiv 1606.08415, section 2
    functional.relu,
    torch.tanh,
    lambda x: functional.relu(x).square(),  # arXiv 2109.08668
)
GRID = torch.linspace(-8.0, 8.0, 1024).view(1, 32, 32)
"""Numbers on which activations are compared: the two forms of GELU differ by up to 5e-4 there."""

NormForm = Callable[[Tensor, Shape, Tensor | None, Tensor | None, float], Tensor]

NORM_FORMS: tuple[NormForm, ...] = (
    lambda x, shape, gain, offset, eps: functional.layer_norm(x, shape, gain, offset, eps),
    lambda x, shape, gain, offset, eps: functional.rms_norm(x, shape, gain, eps),
    lambda x, shape, gain, offset, eps: functional.rms_norm(x, shape, 1 + gain if gain is not None else None, eps),
)
"""Norms with or without a gain and an offset. The last is Gemma's, whose gain is 1 + weight."""
USUAL_EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12, 0.0)
LARGEST_EPSILON = 1e-2


def recognise_forward(module: nn.Module) -> FusedForward | None:
    """Return torch's function for a module that computes one, or None.

    Modules of torch.nn call torch's functions as they are.
    """
    is_leaf = not any(True for _ in module.children()) and not any(True for _ in module.buffers())
    if not is_leaf or type(module).__module__.startswith("torch."):
        return None
    weights = dict(module.named_parameters())
    if not weights:
        activation = next((form for form in ACTIVATION_FORMS if _computes_activation(module, form)), None)
        return activation or _recognise_norm(module, None, None)
    if any(weight.dim() != 1 for weight in weights.values()):
        return None
    gains = [name for name in weights if "bias" not in name and "beta" not in name]
    offsets = [name for name in weights if name not in gains]
    if len(gains) != 1 or len(offsets) > 1:
        return None
    return _recognise_norm(module, gains[0], next(iter(offsets), None))


def _computes_activation(module: nn.Module, form: FusedForward) -> bool:
    """Return whether module and form agree on a grid of numbers."""
    return _agree(lambda: module(GRID), form(GRID))


def _recognise_norm(module: nn.Module, gain: str | None, offset: str | None) -> FusedForward | None:
    """Return the norm that a module with weights of these names computes, or None."""
    for form in NORM_FORMS:
        for eps in _epsilons(module):
            if _computes_norm(module, form, gain, offset, eps):
                return (
                    lambda x, form=form, eps=eps: form(  # type: ignore[misc]
                        x, x.shape[-1:], gain and getattr(module, gain), offset and getattr(module, offset), eps
                    )
                )
    return None


def _epsilons(module: nn.Module) -> Iterable[float]:
    """Return what the module may add to a variance: a small number of its own, or else a usual one."""
    own = [value for value in vars(module).values() if isinstance(value, float) and 0 < value <= LARGEST_EPSILON]
    return own or USUAL_EPSILONS


def _computes_norm(module: nn.Module, form: NormForm, gain: str | None, offset: str | None, eps: float) -> bool:
    """Return whether module and form agree on a row of usual size and on one so small that eps matters."""
    generator = torch.Generator().manual_seed(0)
    names = [name for name in (gain, offset) if name]
    weights = {name: torch.randn(module.get_parameter(name).shape, generator=generator) for name in names}
    shape = tuple(weights[gain].shape) if gain else (32,)
    x = torch.randn(1, 2, *shape, generator=generator) * torch.tensor([[1.0], [1e-3]])
    expected = form(x, shape, weights.get(gain or ""), weights.get(offset or ""), eps)
    return _agree(lambda: torch.func.functional_call(module, weights, (x,)), expected)


def _agree(compute: Callable[[], Any], expected: Tensor) -> bool:
    """Return whether a module's result is the expected one; one that cannot be called like this computes another."""
    try:
        with torch.no_grad():
            result = compute()
            return isinstance(result, Tensor) and torch.allclose(result, expected, rtol=1e-4, atol=1e-6)
    except Exception:  # a module may need other arguments, another shape, or print its own error
        return False
