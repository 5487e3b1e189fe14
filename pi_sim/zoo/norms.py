"""Replacement of norms; DyT and Derf start at the slope of the norm that they replace, which is 1 / std."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pi_sim.errors import UsageError
from pi_sim.zoo import modules
from pi_sim.zoo.layers import Derf, DyT, HardDyT
from pi_sim.zoo.modules import GAIN_NORM_CLASSES

SQUASHING_LAYERS: dict[str, type[DyT]] = {"dyt": DyT, "dyt-hardtanh": HardDyT, "derf": Derf}
AFFINE_PARAMETERS = ("weight", "bias")


@dataclass(frozen=True)
class NativeNorm:
    """Bias and eps of the family's norm, which every replacement inherits, also from an earlier replacement.

    So a checkpoint loads by one surgery on the family's model, however many led to it.
    """

    bias: bool
    eps: float


def replacement_norm(name: str, old: nn.Module, alpha: float) -> nn.Module:
    """Return a norm of that name with the old one's learned gain and bias; DyT and Derf start from `alpha`.

    Raises `UsageError` for a norm without a gain, or a class whose weight is not known to be its gain.
    """
    if name == "none":
        return nn.Identity()
    gain = getattr(old, "weight", None)
    if type(old).__name__ not in GAIN_NORM_CLASSES or not isinstance(gain, Tensor):
        raise UsageError(f"{type(old).__name__} has no gain that {name} could take over; surgery can make it none.")
    native = getattr(old, "native", None) or NativeNorm(getattr(old, "bias", None) is not None, _norm_eps(old))
    fresh = _new_norm(name, gain.numel(), native, alpha).to(gain)
    shared = [
        name
        for name in AFFINE_PARAMETERS
        if getattr(fresh, name, None) is not None and getattr(old, name, None) is not None
    ]
    fresh.load_state_dict({name: getattr(old, name) for name in shared}, strict=False)
    fresh.native = native  # type: ignore[assignment]  # neither tensor nor module, but nn.Module stores any attribute
    return fresh


def _new_norm(name: str, width: int, native: NativeNorm, alpha: float) -> nn.Module:
    """Return a new norm of that width, with a bias only if the family's norm has one."""
    if name == "layernorm":
        return nn.LayerNorm(width, eps=native.eps, bias=native.bias)
    if name == "rmsnorm":
        return nn.RMSNorm(width, eps=native.eps)
    return SQUASHING_LAYERS[name](width, alpha, native.bias)


def _norm_eps(norm: nn.Module) -> float:
    """Return a norm's eps, which families name differently; 1e-5 if it has none."""
    values = (getattr(norm, name, None) for name in ("eps", "variance_epsilon"))
    return next((eps for eps in values if eps is not None), 1e-5)


@torch.no_grad()
def input_stds(model: PreTrainedModel, ids: Tensor) -> dict[str, float]:
    """Return the standard deviation of every norm's input over token ids (N, T), by path."""
    stds: dict[str, float] = {}

    def record_std(path: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        stds[path] = inputs[0].float().std().item()

    paths = modules.block_norm_paths(model) + modules.final_norm_paths(model)
    hooks = [model.get_submodule(path).register_forward_pre_hook(partial(record_std, path)) for path in paths]
    try:
        model(ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return stds


@torch.no_grad()
def init_alphas(model: PreTrainedModel, stds: dict[str, float], excluded: set[nn.Module]) -> None:
    """Set the slope at zero of every DyT and Derf to 1 / std of its input, except in modules of `excluded`.

    For DyT that is alpha = 1 / std, which alpha approximates in training too (arXiv 2503.10622, section 5).
    """
    for path, module in model.named_modules():
        std = stds.get(path, stds.get(path.removesuffix(".norm")))  # inside a Rectified, a norm is one level deeper
        if isinstance(module, DyT) and module not in excluded and std:
            module.alpha.fill_(1 / (module.slope_at_zero * std))
