"""Modules that are written out step by step although torch has one operation for them.

A protocol may have a better algorithm for the whole than for its steps, so the graph shows the whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Whole = Callable[[Tensor], Tensor]


def _gelu_sigmoid(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the coarser form of arXiv 1606.08415, section 2."""
    return functional.silu(1.702 * x) / 1.702


_gelu_tanh = partial(functional.gelu, approximate="tanh")

ACTIVATIONS: dict[str, Whole] = {
    "GELUActivation": functional.gelu,
    "GELUTanh": _gelu_tanh,
    "NewGELUActivation": _gelu_tanh,
    "FastGELUActivation": _gelu_tanh,
    "AccurateGELUActivation": _gelu_tanh,
    "QuickGELUActivation": _gelu_sigmoid,
}
"""By the module's class in transformers."""

Norm = Callable[[Tensor, Tensor, float | None], Tensor]

NORMS: tuple[Norm, ...] = (
    lambda x, weight, eps: functional.rms_norm(x, weight.shape, weight, eps),
    lambda x, weight, eps: functional.rms_norm(x, weight.shape, 1 + weight, eps),
    lambda x, weight, eps: functional.layer_norm(x, weight.shape, weight, None, eps or 0.0),
)
"""Norms with a weight alone, by which Gemma's multiply after adding one."""


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Let the modules of `model` that are known as a whole compute by torch's one operation."""
    known = {module: found for module in model.modules() if (found := _known(module))}
    for module, function in known.items():
        module.forward = function
    try:
        yield
    finally:
        for module in known:
            del module.forward


def _known(module: nn.Module) -> Whole | None:
    """Torch's function for a module, if there is one."""
    name = type(module).__name__
    if name.endswith("Norm") and {each for each, _ in module.named_parameters()} == {"weight"}:
        return _norm(module)
    return ACTIVATIONS.get(name)


def _norm(module: Any) -> Whole | None:
    """The norm that a module of that name is: names do not tell the form, so each is tried on numbers."""
    eps = next((vars(module)[name] for name in ("variance_epsilon", "eps", "epsilon") if name in vars(module)), None)
    form = next((each for each in NORMS if _agrees(module, each, eps)), None)
    return form and (lambda x: form(x, module.weight, eps))


def _agrees(module: nn.Module, form: Norm, eps: float | None) -> bool:
    """Whether module and form do the same to a usual row and to one so small that eps shows."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(module.get_parameter("weight").shape, generator=generator)
    x = torch.randn(2, *weight.shape, generator=generator) * torch.tensor([[1.0], [1e-3]])
    try:
        with torch.no_grad():
            theirs = torch.func.functional_call(module, {"weight": weight}, (x,))
            return torch.allclose(theirs, form(x, weight, eps), rtol=1e-4, atol=1e-6)
    except Exception:  # a module of this name may ask for anything, and is no norm of x alone then
        return False
