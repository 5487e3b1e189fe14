"""Paths and roles of norms, activations, attention, FFNs and matrices in a Hugging Face causal language model.

Families name these modules differently, but similarly enough. Surgery changes only modules whose function is known: a
class of a family has to be listed here. Paths are in the order of the layers.
"""

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
"""Norms whose weight is their gain, which another norm can take over; Gemma's weight is the gain minus one."""
RESIDUAL_FFN_CLASSES = ("GPT2MLP", "GPTNeoXMLP", "LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP", "ScaledFFN")
"""FFNs of the residual stream alone, after at most one norm, whose output the block adds to the stream unchanged."""


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a LayerNorm, an RMSNorm or a replacement; families name their classes alike."""
    return isinstance(module, DyT) or type(module).__name__.endswith(("LayerNorm", "RMSNorm"))


def block_norm_paths(model: nn.Module) -> list[str]:
    """Return the paths of the norms in numbered blocks, such as transformer.h.3.ln_1; not those inside attention."""
    return [path for path, module in model.named_modules() if is_norm(module) and _belongs_to_block(model, path)]


def _belongs_to_block(model: nn.Module, path: str) -> bool:
    """Return whether a norm, or the norm inside a `Rectified`, is a direct child of a numbered block."""
    parent = path.rpartition(".")[0]
    if isinstance(model.get_submodule(parent), Rectified):
        parent = parent.rpartition(".")[0]
    return parent.rpartition(".")[2].isdigit()


def final_norm_paths(model: nn.Module) -> list[str]:
    """Return the path of the norm between last block and head, such as transformer.ln_f; not one of the embeddings."""
    paths = [path for path, module in model.named_modules() if is_norm(module)]
    return [path for path in paths if layer_index(path) is None and "embed" not in path]


def is_before_attention(path: str) -> bool:
    """Return whether a norm of a block precedes its attention; inside a `Rectified` its path is one part longer."""
    return any(part in PRE_ATTENTION_NORM_NAMES for part in path.split("."))


def activation_paths(model: nn.Module) -> list[str]:
    """Return the paths of the FFNs' activations, which are modules in every current family."""
    return _paths_named(model, ACTIVATION_NAMES)


def attention_paths(model: nn.Module) -> list[str]:
    """Return the paths of the innermost attention modules, which return the output and the attention weights."""
    paths = [path for path in _paths_named(model, ATTENTION_NAMES) if layer_index(path) is not None]
    return [path for path in paths if not any(inner.startswith(f"{path}.") for inner in paths)]


def ffn_paths(model: nn.Module) -> list[str]:
    """Return the paths of FFNs that are modules and were not dropped; OPT has none."""
    return [path for path in _paths_named(model, FFN_NAMES) if not isinstance(model.get_submodule(path), NoFFN)]


def _paths_named(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    return [path for path, _ in model.named_modules() if path.rpartition(".")[2] in names]


def layer_index(path: str) -> int | None:
    """Return the number of the block that contains a module; None outside the blocks."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)


NamedModules = list[tuple[str, nn.Module]]
MATRIX_ROLES = {
    "qkv": ("c_attn", "q_attn", "query_key_value", "qkv_proj", "q_proj", "k_proj", "v_proj"),
    "up": ("c_fc", "dense_h_to_4h", "fc1", "up_proj", "gate_proj", "gate_up_proj"),
    "down": ("dense_4h_to_h", "fc2", "down_proj"),
}
"""Names of the matrices that may read a sparse input, by role; GPT-2 calls two of its matrices c_proj."""
ATTENTION_OUTPUTS = ("c_proj", "o_proj", "out_proj", "dense")
"""Names of attention's output matrix, which reads averaged values: never sparse."""


def attention_modules(model: nn.Module) -> NamedModules:
    """Return path and module of every layer's attention. Raises `UsageError` if none has a usual name."""
    paths = attention_paths(model)
    if not paths:
        raise UsageError(f"{type(model).__name__} has no attention under a name that Hugging Face's families use.")
    return [(path, model.get_submodule(path)) for path in paths]


def block_modules(model: nn.Module) -> NamedModules:
    """Return path and module of every layer's block, such as transformer.h.3: its attention's numbered ancestor."""
    paths = [block_path(path) for path, _ in attention_modules(model)]
    return [(path, model.get_submodule(path)) for path in paths]


def block_path(path: str) -> str:
    """Return the path of the block that contains a module; empty for a module outside all blocks."""
    parts = path.split(".")
    depth = next((depth for depth, part in enumerate(parts, start=1) if part.isdigit()), 0)
    return ".".join(parts[:depth])


def weight_matrices(model: nn.Module) -> NamedModules:
    """Return path and module of the weight matrices in all blocks."""
    matrices = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return [(path, module) for path, module in matrices if layer_index(path) is not None]


def matrix_role(path: str, module: nn.Module) -> str | None:
    """Return a matrix's role by its input: "qkv", "up" or "down"; None for others, such as attention's output."""
    name = path.rpartition(".")[2]
    if isinstance(module, FusedFFN):
        return "up"
    if name == "c_proj" and _is_inside(path, FFN_NAMES):
        return "down"
    return next((role for role, names in MATRIX_ROLES.items() if name in names), None)


def unclassified_matrices(model: nn.Module) -> list[str]:
    """Return the matrices without a known name, and the FFNs without a matrix that is a module, such as experts."""
    matrices = weight_matrices(model)
    unnamed = [path for path, module in matrices if not matrix_role(path, module) and not _is_attention_output(path)]
    experts = [ffn for ffn in ffn_paths(model) if not any(path.startswith(f"{ffn}.") for path, _ in matrices)]
    return unnamed + experts


def _is_attention_output(path: str) -> bool:
    return path.rpartition(".")[2] in ATTENTION_OUTPUTS and _is_inside(path, ATTENTION_NAMES)


def _is_inside(path: str, names: tuple[str, ...]) -> bool:
    """Return whether a module has an ancestor of one of these names."""
    return any(part in names for part in path.split(".")[:-1])
