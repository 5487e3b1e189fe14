"""Where things are in a Hugging Face causal language model: families name their parts differently, but alike enough.

What a part does must be known to be changed: a family's own class counts once it is listed here.
"""

from torch import nn

from pi_sim.zoo.layers import DyT, NoFFN, Rectified

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
