"""Small models of every family, and their diagnosis, for the tests of `pi_sim.diagnosis`."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig, PreTrainedModel

from pi_sim.diagnosis.diagnose import diagnose
from pi_sim.diagnosis.ranges import Quantity

LAYERS, HEADS, WIDTH, VOCABULARY = 2, 4, 32, 40
WIDE = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "vocab_size": VOCABULARY}
SHORT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
"""Dimensions of small models with the config keys of BERT and Llama."""
CONFIGS = {
    "gpt2": GPT2Config(n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, vocab_size=VOCABULARY, eos_token_id=0),
    "gpt_neox": GPTNeoXConfig(**WIDE, intermediate_size=64),
    "opt": OPTConfig(**WIDE, ffn_dim=64, word_embed_proj_dim=WIDTH),
    "llama": LlamaConfig(**WIDE, intermediate_size=64, num_key_value_heads=2),
}


def model(family: str = "gpt2") -> PreTrainedModel:
    """A small random model, with attention that is far from uniform."""
    torch.manual_seed(1)
    config = copy.deepcopy(CONFIGS[family])  # surgery writes into it
    network = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    return network.eval()


def diagnose_model(network: PreTrainedModel, ids: Tensor, *quantities: Quantity) -> dict[str, Any]:
    """Return the full diagnosis; check that it reports its progress."""
    progress: list[float] = []
    diagnosis = diagnose(network, ids, list(quantities), progress.append)
    assert progress == [done / len(ids) for done in range(1, len(ids) + 1)]
    return diagnosis
