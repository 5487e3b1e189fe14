"""Surgery: swap the norms, activations, attention and FFNs of any Hugging Face causal language model.

A plan is a table such as {"norm": "none", "final_norm": "none", "activation": "relu"}, the switches of
`pi_sim.specs.Surgery`; what it does not name is left as it is. It travels in config.json under `pi_sim`, from which
`zoo.build.load` rebuilds the same model. Weights that a switch does not replace stay untouched.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.errors import UsageError
from pi_sim.specs import Surgery
from pi_sim.zoo import anatomy
from pi_sim.zoo.activations import activation
from pi_sim.zoo.attention import IMPLEMENTATIONS, add_temperature
from pi_sim.zoo.layers import FusedFFN, NoFFN, Rectified, ScaledFFN
from pi_sim.zoo.norms import norm

Plan = dict[str, Any]


def operate(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Carry out the plan on the model, in place, and record it in the model's config.

    Raises `UsageError` for an unknown switch, and for one that this model has no place for.
    """
    switches = specs.check(Surgery, plan, "surgery")
    for switch, swap in SWAPS.items():
        if switch in switches.plan():
            swap(model, switches)
    model.config.pi_sim = {**getattr(model.config, "pi_sim", {}), **switches.plan()}
    return model


def _replace(model: nn.Module, places: list[str], make: Callable[[str, nn.Module], nn.Module], what: str) -> None:
    """Put what `make` makes of a path and its module in that module's place."""
    if not places:
        raise UsageError(f"{type(model).__name__} has no {what}.")
    for path in places:
        model.set_submodule(path, make(path, model.get_submodule(path)))


def _norm(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        alpha = switches.alpha_attention if anatomy.before_attention(path) else switches.alpha_other
        return norm(str(switches.norm), old, alpha)

    _replace(model, anatomy.block_norms(model), make, f"norm in its blocks that surgery could make {switches.norm}")


def _final_norm(model: PreTrainedModel, switches: Surgery) -> None:
    def make(path: str, old: nn.Module) -> nn.Module:
        return norm(str(switches.final_norm), old, switches.alpha_other)

    _replace(model, anatomy.final_norms(model), make, f"final norm that surgery could make {switches.final_norm}")


def _activation(model: PreTrainedModel, switches: Surgery) -> None:
    make = activation(switches)
    what = f"activation that surgery could make {switches.activation}"
    _replace(model, anatomy.activations(model), lambda path, old: make(), what)


def _attention(model: PreTrainedModel, switches: Surgery) -> None:
    model.set_attn_implementation(IMPLEMENTATIONS[str(switches.attention)])


def _temperature(model: PreTrainedModel, switches: Surgery) -> None:
    for path in anatomy.attentions(model):
        add_temperature(model.get_submodule(path), model.config.num_attention_heads)
    if model.config._attn_implementation not in IMPLEMENTATIONS.values():
        model.set_attn_implementation(IMPLEMENTATIONS["softmax"])


def _relu_after_norm(model: PreTrainedModel, switches: Surgery) -> None:
    what = "norm in its blocks to put a ReLU after"
    _replace(model, anatomy.block_norms(model), lambda path, old: Rectified(old), what)


def _ffn(model: PreTrainedModel, switches: Surgery) -> None:
    if anatomy.block_norms(model):
        raise UsageError(f"ffn = {switches.ffn} scales the residual, so that it needs norm = none as well.")

    def make(path: str, old: nn.Module) -> nn.Module:
        inner = old.ffn if isinstance(old, ScaledFFN) else old
        return ScaledFFN(_fused(model, path, inner) if switches.ffn == "fused" else inner)

    _replace(model, anatomy.ffns(model), make, f"FFN as a module of its own that surgery could make {switches.ffn}")


def _fused(model: PreTrainedModel, path: str, ffn: nn.Module) -> nn.Module:
    """One matrix for two, where there is nothing between them."""
    acts = [ffn.get_submodule(place) for place in anatomy.activations(ffn)]
    if not acts or hasattr(ffn, "gate_proj") or not all(isinstance(act, nn.Identity) for act in acts):
        raise UsageError(f"{path} cannot be fused into one matrix: it needs activation = identity, and no gate.")
    return FusedFFN.of(ffn, model.config.hidden_size)


def _dropped_ffn(model: PreTrainedModel, switches: Surgery) -> None:
    """Drop the FFN of the layers named, with the norm before it."""
    layers = model.config.num_hidden_layers
    if wrong := [layer for layer in switches.dropped_ffn if layer >= layers]:
        raise UsageError(f"the model has no layer {wrong[0]}: dropped_ffn may name 0 to {layers - 1}.")
    places = [path for path in anatomy.ffns(model) if anatomy.layer(path) in switches.dropped_ffn]
    _replace(model, places, lambda path, old: NoFFN(), "FFN as a module of its own that could be dropped")
    for path in anatomy.block_norms(model):
        if anatomy.layer(path) in switches.dropped_ffn and not anatomy.before_attention(path):
            model.set_submodule(path, nn.Identity())


SWAPS: dict[str, Callable[[PreTrainedModel, Surgery], None]] = {
    "norm": _norm,
    "final_norm": _final_norm,
    "activation": _activation,
    "attention": _attention,
    "temperature": _temperature,
    "relu_after_norm": _relu_after_norm,
    "ffn": _ffn,
    "dropped_ffn": _dropped_ffn,
}
"""In this order: an FFN can be fused once its activation is gone, a norm rectified once it is what it will be."""
