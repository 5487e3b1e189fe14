"""Tiny configs of many architectures of transformers, by their `model_type`: two layers, width 32."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from pi_sim.zoo.build import model_class, quiet_transformers

TINY = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 50,
    "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
WIDE_HEADS = {"head_dim": 8, **GROUPED}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, **GROUPED}
IMAGE = {"image_size": 8, "patch_size": 4}
FACTORISED = {"embedding_size": 32}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "gpt_neox": {},
    "openai-gpt": {},
    "ctrl": {"dff": 64},
    "biogpt": {},
    "codegen": {"rotary_dim": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64},
    "bloom": {},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "falcon": {},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": WIDE_HEADS,
    "gemma": WIDE_HEADS,
    "gemma2": WIDE_HEADS,
    "gemma3_text": WIDE_HEADS,
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "stablelm": GROUPED,
    "starcoder2": GROUPED,
    "cohere": GROUPED,
    "cohere2": GROUPED,
    "glm": WIDE_HEADS,
    "glm4": WIDE_HEADS,
    "granite": GROUPED,
    "smollm3": GROUPED,
    "helium": WIDE_HEADS,
    "nemotron": GROUPED,
    "exaone4": GROUPED,
    "ernie4_5": GROUPED,
    "arcee": GROUPED,
    "lfm2": GROUPED,
    "mixtral": {"num_local_experts": 4, **GROUPED},
    "qwen2_moe": {"shared_expert_intermediate_size": 16, **EXPERTS},
    "qwen3_moe": {"head_dim": 8, **EXPERTS},
    "olmoe": EXPERTS,
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2, **GROUPED},
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "electra": FACTORISED,
    "albert": FACTORISED,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "modernbert": {"global_attn_every_n_layers": 2},
    "mpnet": {},
    "roformer": FACTORISED,
    "esm": {"mask_token_id": 2},
    "deberta": {},
    "deberta-v2": {},
    "megatron-bert": {},
    "nomic_bert": {},
    "eurobert": GROUPED,
    "vit": IMAGE,
    "deit": IMAGE,
    "beit": IMAGE,
    "dinov2": IMAGE,
    "clip_vision_model": IMAGE,
    "siglip_vision_model": IMAGE,
}
PAIRS = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
WIDE_PAIRS = {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32, "decoder_start_token_id": 0, **PAIRS}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": T5,
    "mt5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, **T5},
    "bart": WIDE_PAIRS,
    "marian": WIDE_PAIRS,
    "pegasus": WIDE_PAIRS,
    "m2m_100": WIDE_PAIRS,
}


def build_tiny(architecture: str, device: str) -> PreTrainedModel:
    """Build the tiny model of an architecture; with data, all its weights are random."""
    config = AutoConfig.for_model(architecture, **{**TINY, **{**ARCHITECTURES, **ENCODER_DECODERS}[architecture]})
    torch.manual_seed(0)
    with quiet_transformers(), torch.device(device):
        model: PreTrainedModel = model_class(config)._from_config(config, attn_implementation="eager").eval()
    if device == "cpu":
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.1)
    return model
