"""The places that probes look at, as (path, module) in the order of the layers."""

from torch import nn
from transformers.pytorch_utils import Conv1D

from pi_sim.errors import UsageError
from pi_sim.zoo import anatomy
from pi_sim.zoo.layers import FusedFFN

Places = list[tuple[str, nn.Module]]

ROLES = {
    "qkv": ("c_attn", "q_attn", "query_key_value", "qkv_proj", "q_proj", "k_proj", "v_proj"),
    "up": ("c_fc", "dense_h_to_4h", "fc1", "up_proj", "gate_proj", "gate_up_proj"),
    "down": ("dense_4h_to_h", "fc2", "down_proj"),
}
"""What families call the matrices that read a sparse input, if there is one; GPT-2 calls two of its matrices c_proj."""
OUTPUTS = ("c_proj", "o_proj", "out_proj", "dense")
"""What they call the matrix at attention's end, which reads averaged values: never sparse."""


def attentions(model: nn.Module) -> Places:
    """Every layer's attention."""
    paths = anatomy.attentions(model)
    if not paths:
        raise UsageError(f"{type(model).__name__} has no attention under a name that Hugging Face's families use.")
    return [(path, model.get_submodule(path)) for path in paths]


def blocks(model: nn.Module) -> Places:
    """Every layer's block: what is numbered around its attention, such as transformer.h.3."""
    paths = [block_path(path) for path, _ in attentions(model)]
    return [(path, model.get_submodule(path)) for path in paths]


def block_path(path: str) -> str:
    """The block's path in that of a module inside it; empty for a module outside all blocks."""
    parts = path.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), -1)
    return ".".join(parts[: number + 1])


def matrices(model: nn.Module) -> Places:
    """The weight matrices inside all blocks."""
    return [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and anatomy.layer(path) is not None
    ]


def role(path: str, module: nn.Module) -> str | None:
    """What a matrix reads: the input of "qkv", of "up" or of "down"; None for others, such as attention's output."""
    name = path.rpartition(".")[2]
    if isinstance(module, FusedFFN):
        return "up"
    if name == "c_proj" and _inside(path, anatomy.FFNS):
        return "down"
    return next((role for role, names in ROLES.items() if name in names), None)


def unknown(model: nn.Module) -> list[str]:
    """Matrices whose names tell no role, and FFNs that have none in the form of a module, such as a set of experts."""
    found = matrices(model)
    nameless = [path for path, module in found if role(path, module) is None and not _output(path)]
    experts = [ffn for ffn in anatomy.ffns(model) if not any(path.startswith(f"{ffn}.") for path, _ in found)]
    return nameless + experts


def _output(path: str) -> bool:
    return path.rpartition(".")[2] in OUTPUTS and _inside(path, anatomy.ATTENTIONS)


def _inside(path: str, names: tuple[str, ...]) -> bool:
    """Whether a module lies in one of that name, directly or not."""
    return any(part in names for part in path.split(".")[:-1])
