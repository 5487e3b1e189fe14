"""A small model of every Hugging Face family that capture supports."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    ViTConfig,
    ViTForImageClassification,
)

BLOCKS: dict[str, Any] = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "attn_implementation": "eager",
}  # fmt: skip
COMMON = {"max_position_embeddings": 16, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0, **BLOCKS}
WIDE = {"intermediate_size": 64, **COMMON}
GROUPED = {"num_key_value_heads": 2, **WIDE}

Family = tuple[type[PreTrainedModel], type[PretrainedConfig], dict[str, Any]]

CAUSAL: dict[str, Family] = {
    "gpt2": (GPT2LMHeadModel, GPT2Config, COMMON),
    "neox-parallel": (GPTNeoXForCausalLM, GPTNeoXConfig, {"use_parallel_residual": True, **WIDE}),
    "neox-sequential": (GPTNeoXForCausalLM, GPTNeoXConfig, {"use_parallel_residual": False, **WIDE}),
    "opt": (OPTForCausalLM, OPTConfig, {"ffn_dim": 64, "word_embed_proj_dim": 32, **COMMON}),
    "llama": (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 4, **WIDE}),
    "llama-grouped": (LlamaForCausalLM, LlamaConfig, GROUPED),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 5, **GROUPED}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, GROUPED),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"head_dim": 8, **GROUPED}),
}
ENCODERS: dict[str, Family] = {
    "bert": (BertModel, BertConfig, WIDE),
    "bert-classifier": (BertForSequenceClassification, BertConfig, WIDE),
    "roberta": (RobertaForMaskedLM, RobertaConfig, {"pad_token_id": 3, **WIDE}),
}
IMAGES: dict[str, Family] = {
    "vit": (ViTForImageClassification, ViTConfig, {"image_size": 8, "patch_size": 4, "intermediate_size": 64, **BLOCKS})
}
FAMILIES = {**CAUSAL, **ENCODERS, **IMAGES}


def build_model(family: str, **changes: Any) -> PreTrainedModel:
    """Build a model of that family as transformers initialises it."""
    model, config, options = FAMILIES[family]
    return model(config(**options | changes)).eval()


def build_random_model(family: str) -> PreTrainedModel:
    """Build the model with all weights random, gains and biases too, so that a missing one is noticed."""
    torch.manual_seed(0)
    model = build_model(family)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def input_length(family: str) -> int:
    """Return how many tokens to read; an image of 8 x 8 in patches of 4 x 4 is four, and its class token."""
    return 5 if family in IMAGES else 12
