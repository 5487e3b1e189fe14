"""Where DyT and Derf start in a model that had norms: at the slope that the norms had, which is 1 / std."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pi_sim.zoo import anatomy
from pi_sim.zoo.layers import DyT


@torch.no_grad()
def input_stds(model: PreTrainedModel, ids: Tensor) -> dict[str, float]:
    """The standard deviation of what each norm reads, by its path, over token ids (N, T)."""
    found: dict[str, float] = {}

    def see(path: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found[path] = inputs[0].float().std().item()

    paths = anatomy.block_norm_paths(model) + anatomy.final_norm_paths(model)
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
