"""Surgery: swap the norms, activations, attention and FFNs of a Hugging Face causal language model.

A plan is a table such as {"norm": "none", "final_norm": "none", "activation": "relu"}, the switches of
`pi_sim.specs.Surgery`; the model keeps everything else. Each switch has one function, which changes the model in place.
Weights that a switch does not replace stay untouched; DyT and Derf start at the slope of the norm that they replace,
which is 1 / std.

Plans can be applied in sequence. Their composition is one plan for the family's model: config.json holds it as
`pi_sim`, from which `zoo.build.load_checkpoint` rebuilds the model.

Tested on GPT-2, GPT-NeoX, OPT, Llama, Mistral, Qwen2 and Qwen3. In other families, switches that need no knowledge of
the family, such as norm = none, are carried out, and the others refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.specs.designs import DEPENDENT_SETTINGS, REQUIRES, Surgery
from pi_sim.zoo import modules
from pi_sim.zoo.layers import (
    ATTENTION_IMPLEMENTATIONS,
    Derf,
    DyT,
    FusedFFN,
    HardDyT,
    NoFFN,
    Rectified,
    ScaledFFN,
    activation_factory,
    add_temperature,
)

Plan = dict[str, Any]
SQUASHING_LAYERS: dict[str, type[DyT]] = {"dyt": DyT, "dyt-hardtanh": HardDyT, "derf": Derf}


def apply_surgery(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Carry out the plan on the model, in place, and store the composed plan in the model's config.

    Raises `UsageError` for an unknown switch, a switch without a counterpart in this model, and an impossible plan.
    """
    switches = specs.validate_table(Surgery, plan, "surgery")
    after = _combined_surgery(getattr(model.config, "pi_sim", {}), switches)
    for switch, swap in SWAPS.items():
        if switch in switches.plan():
            swap(model, switches)
    model.config.pi_sim = after.plan()
    return model


def affected_switches(plan: Plan) -> set[str]:
    """Return the switches that a plan names, and their settings."""
    return {*plan, *(setting for setting in DEPENDENT_SETTINGS if not plan.keys().isdisjoint(REQUIRES[setting][0]))}


def _combined_surgery(earlier: Plan, switches: Surgery) -> Surgery:
    """Compose two plans: a switch replaces the earlier one and its settings, and dropped FFNs stay dropped."""
    chosen = switches.model_dump(mode="json", exclude_unset=True)
    unaffected = {switch: value for switch, value in earlier.items() if switch not in affected_switches(chosen)}
    if "dropped_ffn" in chosen:
        chosen["dropped_ffn"] = sorted({*earlier.get("dropped_ffn", []), *chosen["dropped_ffn"]})
    return specs.validate_table(Surgery, {**unaffected, **chosen}, "the model after this surgery")


def _replace_modules(
    model: nn.Module, paths: list[str], make: Callable[[str, nn.Module], nn.Module], description: str
) -> None:
    """Replace the modules at `paths` by `make(path, module)`. Raises `UsageError` with `description` if none exists."""
    if not paths:
        raise UsageError(f"{type(model).__name__} has no {description}.")
    for path in paths:
        model.set_submodule(path, make(path, model.get_submodule(path)))


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
    if type(old).__name__ not in modules.GAIN_NORM_CLASSES or not isinstance(gain, Tensor):
        raise UsageError(f"{type(old).__name__} has no gain that {name} could take over; surgery can make it none.")
    native = getattr(old, "native", None) or NativeNorm(getattr(old, "bias", None) is not None, _norm_eps(old))
    fresh = _new_norm(name, gain.numel(), native, alpha).to(gain)
    affine = {name: value for name, value in old.state_dict().items() if name in ("weight", "bias")}
    fresh.load_state_dict(affine, strict=False)  # not strict: RMSNorm, and a family without one, has no bias
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


def _swap_norms(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        alpha = switches.alpha_attention if modules.is_before_attention(path) else switches.alpha_other
        return replacement_norm(str(switches.norm), old, alpha)

    description = f"norm in its blocks that surgery could make {switches.norm}"
    _replace_modules(model, modules.block_norm_paths(model), make, description)


def _swap_final_norm(model: PreTrainedModel, switches: Surgery) -> None:
    name, paths = str(switches.final_norm), modules.final_norm_paths(model)
    make = partial(replacement_norm, name, alpha=switches.alpha_other)
    _replace_modules(model, paths, lambda path, old: make(old), f"final norm that surgery could make {name}")


def _swap_activations(model: PreTrainedModel, switches: Surgery) -> None:
    make = activation_factory(switches)
    description = f"activation that surgery could make {switches.activation}"
    _replace_modules(model, modules.activation_paths(model), lambda path, old: make(), description)


def _set_attention_form(model: PreTrainedModel, form: str) -> None:
    """Let the model look its attention up under pi-sim's name, which not all families support."""
    if not model._can_set_attn_implementation() or getattr(model.config, "attn_logit_softcapping", None):
        raise UsageError(f"{type(model).__name__} has a custom attention, which surgery cannot change.")
    model.set_attn_implementation(ATTENTION_IMPLEMENTATIONS[form])


def _add_temperatures(model: PreTrainedModel, switches: Surgery) -> None:
    if model.config._attn_implementation not in ATTENTION_IMPLEMENTATIONS.values():
        _set_attention_form(model, "softmax")
    attentions = [model.get_submodule(path) for path in modules.attention_paths(model)]
    constant = [attention for attention in attentions if not hasattr(attention, "inverse_temperature")]
    if not constant:
        raise UsageError(f"{type(model).__name__} has no attention without a temperature that could learn one.")
    for attention in constant:
        add_temperature(attention, model.config.num_attention_heads)


def _add_relus_after_norms(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, modules.GAIN_NORM_CLASSES)
        return Rectified(old)

    rectified = [module.norm for module in model.modules() if isinstance(module, Rectified)]
    paths = [path for path in modules.block_norm_paths(model) if model.get_submodule(path) not in rectified]
    _replace_modules(model, paths, make, "norm in its blocks to put a ReLU after")


def _check_class(module: nn.Module, path: str, classes: tuple[str, ...]) -> None:
    """Raise `UsageError` for a class that is not listed: its function is not known."""
    name = type(module).__name__
    if name not in classes:
        raise UsageError(f"{path} is a {name}, which surgery does not know; it knows {', '.join(classes)}.")


def _swap_ffns(model: PreTrainedModel, switches: Surgery) -> None:
    if modules.block_norm_paths(model):
        raise UsageError(f"ffn = {switches.ffn} scales the residual, so that it needs norm = none as well.")

    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, modules.RESIDUAL_FFN_CLASSES)
        scaled = old if isinstance(old, ScaledFFN) else ScaledFFN(old)
        if switches.ffn == "fused":
            scaled.ffn = _fuse_ffn(model, path, scaled.ffn)
        elif isinstance(scaled.ffn, FusedFFN):
            raise UsageError(f"{path} is one matrix already, which surgery cannot make two again.")
        return scaled

    description = f"separate FFN module that surgery could make {switches.ffn}"
    _replace_modules(model, modules.ffn_paths(model), make, description)


def _fuse_ffn(model: PreTrainedModel, path: str, ffn: nn.Module) -> nn.Module:
    """Return one matrix for the FFN's two. Raises `UsageError` if an activation or a gate lies between them."""
    if isinstance(ffn, FusedFFN):
        return ffn
    activations = [ffn.get_submodule(name) for name in modules.activation_paths(ffn)]
    is_linear = activations and all(isinstance(activation, nn.Identity) for activation in activations)
    if not is_linear or hasattr(ffn, "gate_proj"):
        raise UsageError(f"{path} cannot be fused into one matrix: it needs activation = identity, and no gate.")
    return FusedFFN.from_ffn(ffn, model.config.hidden_size)


def _drop_ffns(model: PreTrainedModel, switches: Surgery) -> None:
    """Drop the FFNs of the listed layers, and the norms before them."""
    layers = model.config.num_hidden_layers
    if missing := [layer for layer in switches.dropped_ffn if layer >= layers]:
        raise UsageError(f"the model has no layer {missing[0]}: dropped_ffn may name 0 to {layers - 1}.")

    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, modules.RESIDUAL_FFN_CLASSES)
        return NoFFN()

    paths = [path for path in modules.ffn_paths(model) if modules.layer_index(path) in switches.dropped_ffn]
    _replace_modules(model, paths, make, "separate FFN module that surgery could drop")
    for path in modules.block_norm_paths(model):
        if modules.layer_index(path) in switches.dropped_ffn and not modules.is_before_attention(path):
            model.set_submodule(path, nn.Identity())


SWAPS: dict[str, Callable[[PreTrainedModel, Surgery], None]] = {
    "norm": _swap_norms,
    "final_norm": _swap_final_norm,
    "activation": _swap_activations,
    "attention": lambda model, switches: _set_attention_form(model, str(switches.attention)),
    "temperature": _add_temperatures,
    "relu_after_norm": _add_relus_after_norms,
    "ffn": _swap_ffns,
    "dropped_ffn": _drop_ffns,
}
"""Functions by switch, in the order of application: an FFN is fused after its activation is gone, and a norm rectified
after it is replaced."""


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
