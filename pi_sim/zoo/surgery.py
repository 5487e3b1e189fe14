"""Surgery: swap the norms, activations, attention and FFNs of a Hugging Face causal language model.

A plan is a table such as {"norm": "none", "final_norm": "none", "activation": "relu"}, the switches of
`pi_sim.specs.Surgery`; what it does not name is left as it is. Weights that a switch does not replace stay untouched.

Plans may follow one another. What all of them made of the family's own model is one plan again: it travels in
config.json under `pi_sim`, from which `zoo.build.load` rebuilds the same model.

Tested on GPT-2, GPT-NeoX, OPT, Llama, Mistral, Qwen2 and Qwen3. In other families a switch is carried out where that
takes no knowledge of their own, such as norm = none, and refused where it does.
"""

# MERGED: What each switch of surgery does to a model, in place; `pi_sim.zoo.surgery` calls them by their names.

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
    """Carry out the plan on the model, in place, and record in the model's config what it is now.

    Raises `UsageError` for an unknown switch, for one that this model has no place for, and for what no model can be.
    """
    switches = specs.validate_table(Surgery, plan, "surgery")
    after = _combined_surgery(getattr(model.config, "pi_sim", {}), switches)
    for switch, swap in SWAPS.items():
        if switch in switches.plan():
            swap(model, switches)
    model.config.pi_sim = after.plan()
    return model


def affected_switches(plan: Plan) -> set[str]:
    """The switches that a plan decides: those that it names, and the settings of these."""
    return {*plan, *(setting for setting in DEPENDENT_SETTINGS if not plan.keys().isdisjoint(REQUIRES[setting][0]))}


def _combined_surgery(known: Plan, switches: Surgery) -> Surgery:
    """What a model is after both: a switch replaces the same one with its settings, and dropped FFNs stay dropped."""
    chosen = switches.model_dump(mode="json", exclude_unset=True)
    kept = {switch: value for switch, value in known.items() if switch not in affected_switches(chosen)}
    if "dropped_ffn" in chosen:
        chosen["dropped_ffn"] = sorted({*known.get("dropped_ffn", []), *chosen["dropped_ffn"]})
    return specs.validate_table(Surgery, {**kept, **chosen}, "the model after this surgery")


def _replace_modules(
    model: nn.Module, places: list[str], make: Callable[[str, nn.Module], nn.Module], what: str
) -> None:
    """Put what `make` makes of a path and its module in that module's place."""
    if not places:
        raise UsageError(f"{type(model).__name__} has no {what}.")
    for path in places:
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
    what = f"activation that surgery could make {switches.activation}"
    _replace_modules(model, modules.activation_paths(model), lambda path, old: make(), what)


def _swap_attention(model: PreTrainedModel, switches: Surgery) -> None:
    _set_attention_form(model, str(switches.attention))


def _set_attention_form(model: PreTrainedModel, form: str) -> None:
    """Let the model look its attention up under our name, which not all families can."""
    if not model._can_set_attn_implementation() or getattr(model.config, "attn_logit_softcapping", None):
        raise UsageError(f"{type(model).__name__} has an attention of its own kind, which surgery cannot change.")
    model.set_attn_implementation(ATTENTION_IMPLEMENTATIONS[form])


def _add_temperatures(model: PreTrainedModel, switches: Surgery) -> None:
    if model.config._attn_implementation not in ATTENTION_IMPLEMENTATIONS.values():
        _set_attention_form(model, "softmax")
    places = [model.get_submodule(path) for path in modules.attention_paths(model)]
    without = [attention for attention in places if not hasattr(attention, "inverse_temperature")]
    if not without:
        raise UsageError(f"{type(model).__name__} has no attention without a temperature that could learn one.")
    for attention in without:
        add_temperature(attention, model.config.num_attention_heads)


def _add_relus_after_norms(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, modules.GAIN_NORM_CLASSES)
        return Rectified(old)

    places = [
        path for path in modules.block_norm_paths(model) if not isinstance(_parent_module(model, path), Rectified)
    ]
    _replace_modules(model, places, make, "norm in its blocks to put a ReLU after")


def _parent_module(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path.rpartition(".")[0])


def _check_class(module: nn.Module, path: str, classes: tuple[str, ...]) -> None:
    """Refuse what a family may have made for a purpose of its own."""
    kind = type(module).__name__
    if kind not in classes:
        raise UsageError(f"{path} is a {kind}, which surgery does not know; it knows {', '.join(classes)}.")


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
        model, modules.ffn_paths(model), make, f"FFN as a module of its own that surgery could make {switches.ffn}"
    )


def _fuse_ffn(model: PreTrainedModel, path: str, ffn: nn.Module) -> nn.Module:
    """One matrix for two, where there is nothing between them."""
    if isinstance(ffn, FusedFFN):
        return ffn
    acts = [ffn.get_submodule(place) for place in modules.activation_paths(ffn)]
    if not acts or hasattr(ffn, "gate_proj") or not all(isinstance(act, nn.Identity) for act in acts):
        raise UsageError(f"{path} cannot be fused into one matrix: it needs activation = identity, and no gate.")
    return FusedFFN.from_ffn(ffn, model.config.hidden_size)


def _drop_ffns(model: PreTrainedModel, switches: Surgery) -> None:
    """Drop the FFN of the layers named, with the norm before it."""
    layers = model.config.num_hidden_layers
    if wrong := [layer for layer in switches.dropped_ffn if layer >= layers]:
        raise UsageError(f"the model has no layer {wrong[0]}: dropped_ffn may name 0 to {layers - 1}.")

    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, modules.RESIDUAL_FFN_CLASSES)
        return NoFFN()

    places = [path for path in modules.ffn_paths(model) if modules.layer_index(path) in switches.dropped_ffn]
    _replace_modules(model, places, make, "FFN as a module of its own that could be dropped")
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
"""In this order: an FFN can be fused once its activation is gone, a norm rectified once it is what it will be."""
