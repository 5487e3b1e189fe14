"""Every switch of surgery by a name, the families that it is tested on, and combinations that are impossible."""

import torch
from transformers import PreTrainedModel

from pi_sim.zoo import surgery
from tests.helpers.tiny_models import design_model

FAMILIES = ("gpt2", "gpt_neox", "opt", "llama")
NORM_FREE = {"norm": "none", "final_norm": "none"}
SOFTMAX_ONLY = {**NORM_FREE, "activation": "identity"}
SWITCHES: dict[str, surgery.Plan] = {
    "layernorm": {"norm": "layernorm", "final_norm": "layernorm"},
    "rmsnorm": {"norm": "rmsnorm", "final_norm": "rmsnorm"},
    "no norm": NORM_FREE,
    "DyT": {"norm": "dyt", "final_norm": "dyt", "alpha_attention": 0.8, "alpha_other": 0.2},
    "hard DyT": {"norm": "dyt-hardtanh", "final_norm": "dyt-hardtanh"},
    "Derf": {"norm": "derf", "final_norm": "derf"},
    "gelu": {"activation": "gelu"},
    "gelu_tanh": {"activation": "gelu_tanh"},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu"},
    "leaky": {"activation": "leaky_relu", "slope": 0.1},
    "slope by layer": {"activation": "learnable_lrelu"},
    "slope of all": {"activation": "learnable_lrelu", "slopes": "global"},
    "quad": {"activation": "quad"},
    "identity": {"activation": "identity"},
    "2relu": {"attention": "2relu"},
    "2quad": {"attention": "2quad"},
    "temperature": {"temperature": True},
    "relu after norm": {"relu_after_norm": True},
    "scaled FFN": {**NORM_FREE, "ffn": "scaled"},
    "fused FFN": {**SOFTMAX_ONLY, "ffn": "fused"},
    "no FFN": {"dropped_ffn": [1]},
}
IMPOSSIBLE = {("opt", "scaled FFN"), ("opt", "fused FFN"), ("opt", "no FFN"), ("llama", "fused FFN")}
"""OPT keeps its FFN inside its layers; Llama's is gated, and no gate is affine."""
POSSIBLE = [(family, name) for family in FAMILIES for name in SWITCHES if (family, name) not in IMPOSSIBLE]


def fresh_model(family: str) -> PreTrainedModel:
    """Build a model of the family without surgery."""
    native = "rmsnorm" if family == "llama" else "layernorm"
    return design_model(family=family, norm=native, final_norm=native, activation="gelu")


def perturbed(model: PreTrainedModel) -> PreTrainedModel:
    """Change every weight, as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model
