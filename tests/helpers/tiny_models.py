"""Untrained models: random weights, two layers, a vocabulary of 40."""

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from pi_sim import specs
from pi_sim.zoo import build

SMALL = specs.load_size("tiny").model_copy(
    update={"layers": 2, "width": 16, "heads": 2, "context": 8, "vocabulary": 40}
)


def tiny_model(card: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return build.build_model(specs.load_model_card(card), SMALL).eval()


def design_model(**architecture: Any) -> PreTrainedModel:
    """Build a model of a design that has no card."""
    card = specs.ModelCard(name="design", title="for tests", source="none", architecture=architecture)
    torch.manual_seed(0)
    return build.build_model(card, SMALL).eval()


def hugging_face(activation: str) -> PreTrainedModel:
    """Build GPT-2 as transformers does by itself."""
    config = GPT2Config(vocab_size=40, n_positions=8, n_embd=16, n_layer=2, n_head=2, activation_function=activation)
    return GPT2LMHeadModel(config).eval()
