"""Families of Hugging Face models: config and surgery of a design at a size.

Every family starts from the same initial scale, with dropout on the embedding alone and with a tied head, so that
designs of different families can be compared.
"""

from collections.abc import Callable
from typing import Any

from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig, PretrainedConfig

from pi_sim.specs import Architecture, ModelCard, Size
from pi_sim.zoo.layers import CONFIG_ACTIVATIONS
from pi_sim.zoo.surgery import Plan

NATIVE_NORMS = {"gpt2": "layernorm", "gpt_neox": "layernorm", "opt": "layernorm", "llama": "rmsnorm"}
"""Norm of every family, which needs no surgery."""

DESIGN_KEYS = (
    *("model_type", "num_hidden_layers", "num_attention_heads", "hidden_size", "max_position_embeddings", "vocab_size"),
    *("hidden_act", "activation_function", "pi_sim"),
)
"""Keys of config.json that depend on card and size; the others are equal for all, or serve training only."""


def hf_config(card: ModelCard, size: Size) -> PretrainedConfig:
    """Return the Hugging Face config of the card at that size, before any surgery."""
    common = {
        "vocab_size": size.vocabulary,
        "initializer_range": size.training.init_std,
        "tie_word_embeddings": True,
        "bos_token_id": 0,  # the end-of-text token is the first of every vocabulary that pi-sim trains
        "eos_token_id": 0,
        "attn_implementation": "eager",
    }
    activation = CONFIG_ACTIVATIONS.get(card.architecture.activation, "gelu")
    return CONFIG_BUILDERS[card.architecture.family](size, activation, common)


def _gpt2_config(size: Size, activation: str, common: dict[str, Any]) -> GPT2Config:
    return GPT2Config(
        n_positions=size.context,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        activation_function=activation,
        embd_pdrop=size.training.embedding_dropout,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        **common,
    )


def _dimension_keys(size: Size) -> dict[str, Any]:
    """Return the dimensions under the names that families after GPT-2 use."""
    return {
        "max_position_embeddings": size.context,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
    }


def _gpt_neox_config(size: Size, activation: str, common: dict[str, Any]) -> GPTNeoXConfig:
    """Config of Pythia: attention and FFN in parallel, rotary positions in a quarter of each head."""
    wide = {"intermediate_size": 4 * size.width, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    return GPTNeoXConfig(hidden_act=activation, **_dimension_keys(size), **wide, **common)


def _opt_config(size: Size, activation: str, common: dict[str, Any]) -> OPTConfig:
    wide = {"ffn_dim": 4 * size.width, "word_embed_proj_dim": size.width, "dropout": 0.0, "attention_dropout": 0.0}
    return OPTConfig(activation_function=activation, pad_token_id=None, **_dimension_keys(size), **wide, **common)


def _llama_config(size: Size, activation: str, common: dict[str, Any]) -> LlamaConfig:
    """Config of Llama: a gated FFN has three matrices, each two thirds as wide (arXiv 2002.05202, section 2)."""
    return LlamaConfig(hidden_act=activation, intermediate_size=8 * size.width // 3, **_dimension_keys(size), **common)


CONFIG_BUILDERS: dict[str, Callable[[Size, str, dict[str, Any]], PretrainedConfig]] = {
    "gpt2": _gpt2_config,
    "gpt_neox": _gpt_neox_config,
    "opt": _opt_config,
    "llama": _llama_config,
}


def surgery_plan(design: Architecture) -> Plan:
    """Return the surgery that the design needs beyond its family's config."""
    plan = design.plan()
    plan.pop("family", None)
    native = {"norm": NATIVE_NORMS[design.family], "final_norm": NATIVE_NORMS[design.family]}
    if design.activation in CONFIG_ACTIVATIONS:
        native["activation"] = design.activation
    return {switch: value for switch, value in plan.items() if value != native.get(switch)}
