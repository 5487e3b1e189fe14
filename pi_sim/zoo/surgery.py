"""Surgery: swap the norms, activations, attention and FFNs of a Hugging Face causal language model.

A plan is a table such as {"norm": "none", "final_norm": "none", "activation": "relu"}, the switches of
`pi_sim.specs.Surgery`; the model keeps everything else. Each switch has one function, which changes the model in place.
Weights that a switch does not replace stay untouched.

Plans can be applied in sequence. Their composition is one plan for the family's model: config.json holds it as
`pi_sim`, from which `zoo.build.load_checkpoint` rebuilds the model.

Tested on GPT-2, GPT-NeoX, OPT, Llama, Mistral, Qwen2 and Qwen3. In other families, switches that need no knowledge of
the family, such as norm = none, are carried out, and the others refused.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.specs.designs import DEPENDENT_SETTINGS, REQUIRES, Surgery
from pi_sim.zoo import modules
from pi_sim.zoo.attention import ATTENTION_IMPLEMENTATIONS, add_temperature
from pi_sim.zoo.layers import FusedFFN, NoFFN, Rectified, ScaledFFN, activation_factory
from pi_sim.zoo.norms import replacement_norm

Plan = dict[str, Any]


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


def _swap_norms(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        alpha = switches.alpha_attention if modules.is_before_attention(path) else switches.alpha_other
        return replacement_norm(str(switches.norm), old, alpha)

    _replace_modules(
        model, modules.block_norm_paths(model), make, f"norm in its blocks that surgery could make {switches.norm}"
    )


def _swap_final_norm(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        return replacement_norm(str(switches.final_norm), old, switches.alpha_other)

    _replace_modules(
        model, modules.final_norm_paths(model), make, f"final norm that surgery could make {switches.final_norm}"
    )


def _swap_activations(model: PreTrainedModel, switches: Surgery) -> None:
    make = activation_factory(switches)
    description = f"activation that surgery could make {switches.activation}"
    _replace_modules(model, modules.activation_paths(model), lambda path, old: make(), description)


def _swap_attention(model: PreTrainedModel, switches: Surgery) -> None:
    _set_attention_form(model, str(switches.attention))


def _set_attention_form(model: PreTrainedModel, form: str) -> None:
    """Let the model look its attention up under pi-sim's name, which not all families support."""
    if not model._can_set_attn_implementation() or getattr(model.config, "attn_logit_softcapping", None):
        raise UsageError(f"{type(model).__name__} has a custom attention, which surgery cannot change.")
    model.set_attn_implementation(ATTENTION_IMPLEMENTATIONS[form])


def _add_temperatures(model: PreTrainedModel, switches: Surgery) -> None:
    if model.config._attn_implementation not in ATTENTION_IMPLEMENTATIONS.values():
        _set_attention_form(model, "softmax")
    attentions = [model.get_submodule(path) for path in modules.attention_paths(model)]
    without_temperature = [attention for attention in attentions if not hasattr(attention, "inverse_temperature")]
    if not without_temperature:
        raise UsageError(f"{type(model).__name__} has no attention without a temperature that could learn one.")
    for attention in without_temperature:
        add_temperature(attention, model.config.num_attention_heads)


def _add_relus_after_norms(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, modules.GAIN_NORM_CLASSES)
        return Rectified(old)

    paths = [path for path in modules.block_norm_paths(model) if not isinstance(_parent_module(model, path), Rectified)]
    _replace_modules(model, paths, make, "norm in its blocks to put a ReLU after")


def _parent_module(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path.rpartition(".")[0])


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

    _replace_modules(
        model, modules.ffn_paths(model), make, f"separate FFN module that surgery could make {switches.ffn}"
    )


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
    "attention": _swap_attention,
    "temperature": _add_temperatures,
    "relu_after_norm": _add_relus_after_norms,
    "ffn": _swap_ffns,
    "dropped_ffn": _drop_ffns,
}
"""Functions by switch, in the order of application: an FFN is fused after its activation is gone, and a norm rectified
after it is replaced."""
