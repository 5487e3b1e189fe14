"""Where things are in a Hugging Face causal language model: families name their parts differently, but alike enough.

What a part does must be known to be changed: a family's own class counts once it is listed here.
"""

# MERGED: The places that probes look at, as (path, module) in the order of the layers.

from torch import nn
from transformers.pytorch_utils import Conv1D

from pi_sim.errors import UsageError
from pi_sim.zoo.layers import DyT, FusedFFN, NoFFN, Rectified

ACTIVATION_NAMES = ("act", "act_fn", "activation_fn", "activation", "gelu_impl")
ATTENTION_NAMES = ("attn", "attention", "self_attn", "self_attention")
FFN_NAMES = ("mlp", "feed_forward")
PRE_ATTENTION_NORM_NAMES = ("ln_1", "input_layernorm", "self_attn_layer_norm", "attention_norm")
GAIN_NORM_CLASSES = (
    *("LayerNorm", "LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"),
    *("RMSNorm", "DyT", "HardDyT", "Derf"),
)
"""Norms whose weight is their gain, as another norm can take it over; in Gemma, for one, it is the gain less one."""
RESIDUAL_FFN_CLASSES = ("GPT2MLP", "GPTNeoXMLP", "LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP", "ScaledFFN")
"""FFNs that take the stream alone, behind one norm at most, and that the block adds to it as they are."""


def is_norm(module: nn.Module) -> bool:
    """A LayerNorm, an RMSNorm or what stands for one; families define classes of their own, but name them alike."""
    return isinstance(module, DyT) or type(module).__name__.endswith(("LayerNorm", "RMSNorm"))


def block_norm_paths(model: nn.Module) -> list[str]:
    """The paths of the numbered blocks' own norms, such as transformer.h.3.ln_1; not those inside their attention."""
    return [path for path, module in model.named_modules() if is_norm(module) and _belongs_to_block(model, path)]


def _belongs_to_block(model: nn.Module, path: str) -> bool:
    """Whether a norm, or the norm and the ReLU after it, is a block's own."""
    parent = path.rpartition(".")[0]
    if isinstance(model.get_submodule(parent), Rectified):
        parent = parent.rpartition(".")[0]
    return parent.rpartition(".")[2].isdigit()


def final_norm_paths(model: nn.Module) -> list[str]:
    """The norm between the last block and the head, such as transformer.ln_f; not one of the embeddings."""
    return [
        path
        for path, module in model.named_modules()
        if is_norm(module) and layer_index(path) is None and "embed" not in path
    ]


def is_before_attention(path: str) -> bool:
    """Whether a norm of a block is the one before its attention; with a ReLU after it, it has a path of its own."""
    return any(part in PRE_ATTENTION_NORM_NAMES for part in path.split("."))


def activation_paths(model: nn.Module) -> list[str]:
    """The activations of FFNs, modules of their own in every family of today."""
    return _paths_named(model, ACTIVATION_NAMES)


def attention_paths(model: nn.Module) -> list[str]:
    """The attention modules, the innermost where one holds another: they return the output and the weights."""
    found = [path for path in _paths_named(model, ATTENTION_NAMES) if layer_index(path) is not None]
    return [path for path in found if not any(other.startswith(f"{path}.") for other in found)]


def ffn_paths(model: nn.Module) -> list[str]:
    """The FFNs that are modules of their own, those that were dropped aside; OPT has none."""
    return [path for path in _paths_named(model, FFN_NAMES) if not isinstance(model.get_submodule(path), NoFFN)]


def _paths_named(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    return [path for path, _ in model.named_modules() if path.rpartition(".")[2] in names]


def layer_index(path: str) -> int | None:
    """The number of the block that a module lies in; None outside the blocks."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)


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
    paths = attention_paths(model)
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
        if isinstance(module, nn.Linear | Conv1D) and layer_index(path) is not None
    ]


def matrix_role(path: str, module: nn.Module) -> str | None:
    """What a matrix reads: the input of "qkv", of "up" or of "down"; None for others, such as attention's output."""
    name = path.rpartition(".")[2]
    if isinstance(module, FusedFFN):
        return "up"
    if name == "c_proj" and _is_inside(path, FFN_NAMES):
        return "down"
    return next((role for role, names in MATRIX_ROLES.items() if name in names), None)


def unclassified_matrices(model: nn.Module) -> list[str]:
    """Matrices whose names tell no role, and FFNs that have none in the form of a module, such as a set of experts."""
    found = weight_matrices(model)
    nameless = [path for path, module in found if matrix_role(path, module) is None and not _is_attention_output(path)]
    experts = [ffn for ffn in ffn_paths(model) if not any(path.startswith(f"{ffn}.") for path, _ in found)]
    return nameless + experts


def _is_attention_output(path: str) -> bool:
    return path.rpartition(".")[2] in ATTENTION_OUTPUTS and _is_inside(path, ATTENTION_NAMES)


def _is_inside(path: str, names: tuple[str, ...]) -> bool:
    """Whether a module lies in one of that name, directly or not."""
    return any(part in names for part in path.split(".")[:-1])
