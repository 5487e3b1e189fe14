"""The places that probes look at, as (path, module) in the order of the layers."""

from torch import nn
from transformers.pytorch_utils import Conv1D

from pi_sim.errors import UsageError
from pi_sim.zoo import anatomy
from pi_sim.zoo.layers import FusedFFN

NamedModules = list[tuple[str, nn.Module]]

MATRIX_ROLES = {
    "qkv": ("c_attn", "q_attn", "query_key_value", "qkv_proj", "q_proj", "k_proj", "v_proj"),
    "up": ("c_fc", "dense_h_to_4h", "fc1", "up_proj", "gate_proj", "gate_up_proj"),
    "down": ("dense_4h_to_h", "fc2", "down_proj"),
}
"""What families call the matrices that read a sparse input, if there is one; GPT-2 calls two of its matrices c_proj."""
ATTENTION_OUTPUTS = ("c_proj", "o_proj", "out_proj", "dense")
"""What they call the matrix at attention's end, which reads averaged values: never sparse."""


def attention_modules(model: nn.Module) -> NamedModules:
    """Every layer's attention."""
    paths = anatomy.attention_paths(model)
    if not paths:
        raise UsageError(f"{type(model).__name__} has no attention under a name that Hugging Face's families use.")
    return [(path, model.get_submodule(path)) for path in paths]


def block_modules(model: nn.Module) -> NamedModules:
    """Every layer's block: what is numbered around its attention, such as transformer.h.3."""
    paths = [block_path(path) for path, _ in attention_modules(model)]
    return [(path, model.get_submodule(path)) for path in paths]


def block_path(path: str) -> str:
    """The block's path in that of a module inside it; empty for a module outside all blocks."""
    parts = path.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), -1)
    return ".".join(parts[: number + 1])


def weight_matrices(model: nn.Module) -> NamedModules:
    """The weight matrices inside all blocks."""
    return [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and anatomy.layer_index(path) is not None
    ]


def matrix_role(path: str, module: nn.Module) -> str | None:
    """What a matrix reads: the input of "qkv", of "up" or of "down"; None for others, such as attention's output."""
    name = path.rpartition(".")[2]
    if isinstance(module, FusedFFN):
        return "up"
    if name == "c_proj" and _is_inside(path, anatomy.FFN_NAMES):
        return "down"
    return next((role for role, names in MATRIX_ROLES.items() if name in names), None)


def unclassified_matrices(model: nn.Module) -> list[str]:
    """Matrices whose names tell no role, and FFNs that have none in the form of a module, such as a set of experts."""
    found = weight_matrices(model)
    nameless = [path for path, module in found if matrix_role(path, module) is None and not _is_attention_output(path)]
    experts = [ffn for ffn in anatomy.ffn_paths(model) if not any(path.startswith(f"{ffn}.") for path, _ in found)]
    return nameless + experts


def _is_attention_output(path: str) -> bool:
    return path.rpartition(".")[2] in ATTENTION_OUTPUTS and _is_inside(path, anatomy.ATTENTION_NAMES)


def _is_inside(path: str, names: tuple[str, ...]) -> bool:
    """Whether a module lies in one of that name, directly or not."""
    return any(part in names for part in path.split(".")[:-1])
