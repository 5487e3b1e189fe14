"""A small model of every Hugging Face family that capture supports."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    CodeGenConfig,
    CodeGenForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
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
LOCAL = [[["global", "local"], 1]]
SEQUENTIAL = {"multi_query": False, "parallel_attn": False}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
LONG = {
    "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 1.5, 2.0, 3.0], "factor": 2.0,
    "rope_theta": 10000.0, "original_max_position_embeddings": 8,
}  # fmt: skip

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
    "gpt-neo": (
        GPTNeoForCausalLM,
        GPTNeoConfig,
        {"num_layers": 2, "attention_types": LOCAL, "window_size": 5, **COMMON},
    ),
    "bloom": (BloomForCausalLM, BloomConfig, COMMON),
    "mpt": (MptForCausalLM, MptConfig, {"n_layers": 2, "d_model": 32, "n_heads": 4, "max_seq_len": 16, **COMMON}),
    "codegen": (CodeGenForCausalLM, CodeGenConfig, {"rotary_dim": 4, "n_positions": 16, **COMMON}),
    "falcon-sequential": (FalconForCausalLM, FalconConfig, {"alibi": True, "bias": True, **SEQUENTIAL, **COMMON}),
    "falcon-parallel": (FalconForCausalLM, FalconConfig, COMMON),
    "falcon-grouped": (
        FalconForCausalLM,
        FalconConfig,
        {"new_decoder_architecture": True, "num_kv_heads": 2, **COMMON},
    ),
    "llama-dynamic": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": DYNAMIC, **GROUPED}),
    "phi3-longrope": (Phi3ForCausalLM, Phi3Config, {"rope_parameters": LONG, "pad_token_id": 0, **GROUPED}),
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
