"""What each switch of surgery does to a model, in place; `pi_sim.zoo.surgery` calls them by their names."""

from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel

from pi_sim.errors import UsageError
from pi_sim.specs import Surgery
from pi_sim.zoo import anatomy
from pi_sim.zoo.activations import activation_factory
from pi_sim.zoo.attention import ATTENTION_IMPLEMENTATIONS, add_temperature
from pi_sim.zoo.layers import FusedFFN, NoFFN, Rectified, ScaledFFN
from pi_sim.zoo.norms import replacement_norm


def _replace_modules(model: nn.Module, places: list[str], make: Callable[[str, nn.Module], nn.Module], what: str) -> None:
    """Put what `make` makes of a path and its module in that module's place."""
    if not places:
        raise UsageError(f"{type(model).__name__} has no {what}.")
    for path in places:
        model.set_submodule(path, make(path, model.get_submodule(path)))


def _swap_norms(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        alpha = switches.alpha_attention if anatomy.is_before_attention(path) else switches.alpha_other
        return replacement_norm(str(switches.norm), old, alpha)

    _replace_modules(model, anatomy.block_norm_paths(model), make, f"norm in its blocks that surgery could make {switches.norm}")


def _swap_final_norm(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        return replacement_norm(str(switches.final_norm), old, switches.alpha_other)

    _replace_modules(model, anatomy.final_norm_paths(model), make, f"final norm that surgery could make {switches.final_norm}")


def _swap_activations(model: PreTrainedModel, switches: Surgery) -> None:
    make = activation_factory(switches)
    what = f"activation that surgery could make {switches.activation}"
    _replace_modules(model, anatomy.activation_paths(model), lambda path, old: make(), what)


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
    places = [model.get_submodule(path) for path in anatomy.attention_paths(model)]
    without = [attention for attention in places if not hasattr(attention, "inverse_temperature")]
    if not without:
        raise UsageError(f"{type(model).__name__} has no attention without a temperature that could learn one.")
    for attention in without:
        add_temperature(attention, model.config.num_attention_heads)


def _add_relus_after_norms(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, anatomy.GAIN_NORM_CLASSES)
        return Rectified(old)

    places = [path for path in anatomy.block_norm_paths(model) if not isinstance(_parent_module(model, path), Rectified)]
    _replace_modules(model, places, make, "norm in its blocks to put a ReLU after")


def _parent_module(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path.rpartition(".")[0])


def _check_class(module: nn.Module, path: str, classes: tuple[str, ...]) -> None:
    """Refuse what a family may have made for a purpose of its own."""
    kind = type(module).__name__
    if kind not in classes:
        raise UsageError(f"{path} is a {kind}, which surgery does not know; it knows {', '.join(classes)}.")


def _swap_ffns(model: PreTrainedModel, switches: Surgery) -> None:
    if anatomy.block_norm_paths(model):
        raise UsageError(f"ffn = {switches.ffn} scales the residual, so that it needs norm = none as well.")

    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, anatomy.RESIDUAL_FFN_CLASSES)
        scaled = old if isinstance(old, ScaledFFN) else ScaledFFN(old)
        if switches.ffn == "fused":
            scaled.ffn = _fuse_ffn(model, path, scaled.ffn)
        elif isinstance(scaled.ffn, FusedFFN):
            raise UsageError(f"{path} is one matrix already, which surgery cannot make two again.")
        return scaled

    _replace_modules(model, anatomy.ffn_paths(model), make, f"FFN as a module of its own that surgery could make {switches.ffn}")


def _fuse_ffn(model: PreTrainedModel, path: str, ffn: nn.Module) -> nn.Module:
    """One matrix for two, where there is nothing between them."""
    if isinstance(ffn, FusedFFN):
        return ffn
    acts = [ffn.get_submodule(place) for place in anatomy.activation_paths(ffn)]
    if not acts or hasattr(ffn, "gate_proj") or not all(isinstance(act, nn.Identity) for act in acts):
        raise UsageError(f"{path} cannot be fused into one matrix: it needs activation = identity, and no gate.")
    return FusedFFN.from_ffn(ffn, model.config.hidden_size)


def _drop_ffns(model: PreTrainedModel, switches: Surgery) -> None:
    """Drop the FFN of the layers named, with the norm before it."""
    layers = model.config.num_hidden_layers
    if wrong := [layer for layer in switches.dropped_ffn if layer >= layers]:
        raise UsageError(f"the model has no layer {wrong[0]}: dropped_ffn may name 0 to {layers - 1}.")

    def make(path: str, old: nn.Module) -> nn.Module:
        _check_class(old, path, anatomy.RESIDUAL_FFN_CLASSES)
        return NoFFN()

    places = [path for path in anatomy.ffn_paths(model) if anatomy.layer_index(path) in switches.dropped_ffn]
    _replace_modules(model, places, make, "FFN as a module of its own that could be dropped")
    for path in anatomy.block_norm_paths(model):
        if anatomy.layer_index(path) in switches.dropped_ffn and not anatomy.is_before_attention(path):
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
