"""What stands in the place of a norm."""

# MERGED: Where DyT and Derf start in a model that had norms: at the slope that the norms had, which is 1 / std.

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
    """What the family's own norm had, and all that take its place have as well, however many were between.

    A checkpoint loads by one operation on the family's own model, whatever the operations were that led there.
    """

    bias: bool
    eps: float


def replacement_norm(name: str, old: nn.Module, alpha: float) -> nn.Module:
    """A norm of that name with the gain and the bias that the old one has learned; DyT and Derf start from alpha.

    Raises `UsageError` for a norm without a gain, or one whose gain is not known to be its weight.
    """
    if name == "none":
        return nn.Identity()
    gain = getattr(old, "weight", None)
    if type(old).__name__ not in GAIN_NORM_CLASSES or not isinstance(gain, Tensor):
        raise UsageError(f"{type(old).__name__} has no gain that {name} could take over; surgery can make it none.")
    own = getattr(old, "own", None) or NativeNorm(getattr(old, "bias", None) is not None, _norm_eps(old))
    fresh = _new_norm(name, gain.numel(), own, alpha).to(gain)
    kept = [
        part
        for part in AFFINE_PARAMETERS
        if getattr(fresh, part, None) is not None and getattr(old, part, None) is not None
    ]
    fresh.load_state_dict({part: getattr(old, part) for part in kept}, strict=False)
    fresh.own = own  # type: ignore[assignment]  # no tensor and no module, but nn.Module keeps anything
    return fresh


def _new_norm(name: str, width: int, own: NativeNorm, alpha: float) -> nn.Module:
    """As wide as the old one, and with a bias only where the family's own has one."""
    if name == "layernorm":
        return nn.LayerNorm(width, eps=own.eps, bias=own.bias)
    if name == "rmsnorm":
        return nn.RMSNorm(width, eps=own.eps)
    return SQUASHING_LAYERS[name](width, alpha, own.bias)


def _norm_eps(norm: nn.Module) -> float:
    """A norm's guard against a division by zero; families call it differently."""
    known = (getattr(norm, name, None) for name in ("eps", "variance_epsilon"))
    return next((eps for eps in known if eps is not None), 1e-5)


@torch.no_grad()
def input_stds(model: PreTrainedModel, ids: Tensor) -> dict[str, float]:
    """The standard deviation of what each norm reads, by its path, over token ids (N, T)."""
    found: dict[str, float] = {}

    def see(path: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found[path] = inputs[0].float().std().item()

    paths = modules.block_norm_paths(model) + modules.final_norm_paths(model)
    hooks = [model.get_submodule(path).register_forward_pre_hook(partial(see, path)) for path in paths]
    try:
        model(ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def init_alphas(model: PreTrainedModel, spreads: dict[str, float], kept: set[nn.Module]) -> None:
    """Give DyT and Derf the slope 1 / std at zero where they took a norm's place, `kept` aside.

    For DyT that is alpha = 1 / std, which alpha follows in training too (arXiv 2503.10622, section 5).
    """
    for path, module in model.named_modules():
        spread = spreads.get(path, spreads.get(path.removesuffix(".norm")))  # with a ReLU after it, it lies one deeper
        if isinstance(module, DyT) and module not in kept and spread:
            module.alpha.fill_(1 / (module.slope_at_zero * spread))
