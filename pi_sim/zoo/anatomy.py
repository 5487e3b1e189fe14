"""Where things are in a Hugging Face causal language model: families name their parts differently, but alike enough.

What a part does must be known to be changed: a family's own class counts once it is listed here.
"""

from torch import nn

from pi_sim.zoo.layers import DyT, NoFFN, Rectified

ACTIVATIONS = ("act", "act_fn", "activation_fn", "activation", "gelu_impl")
ATTENTIONS = ("attn", "attention", "self_attn", "self_attention")
FFNS = ("mlp", "feed_forward")
BEFORE_ATTENTION = ("ln_1", "input_layernorm", "self_attn_layer_norm", "attention_norm")
GAINS = (
    *("LayerNorm", "LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"),
    *("RMSNorm", "DyT", "HardDyT", "Derf"),
)
"""Norms whose weight is their gain, as another norm can take it over; in Gemma, for one, it is the gain less one."""
RESIDUALS = ("GPT2MLP", "GPTNeoXMLP", "LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP", "ScaledFFN")
"""FFNs that take the stream alone, behind one norm at most, and that the block adds to it as they are."""


def is_norm(module: nn.Module) -> bool:
    """A LayerNorm, an RMSNorm or what stands for one; families define classes of their own, but name them alike."""
    return isinstance(module, DyT) or type(module).__name__.endswith(("LayerNorm", "RMSNorm"))


def block_norms(model: nn.Module) -> list[str]:
    """The paths of the numbered blocks' own norms, such as transformer.h.3.ln_1; not those inside their attention."""
    return [path for path, module in model.named_modules() if is_norm(module) and _in_block(model, path)]


def _in_block(model: nn.Module, path: str) -> bool:
    """Whether a norm, or the norm and the ReLU after it, is a block's own."""
    parent = path.rpartition(".")[0]
    if isinstance(model.get_submodule(parent), Rectified):
        parent = parent.rpartition(".")[0]
    return parent.rpartition(".")[2].isdigit()


def final_norms(model: nn.Module) -> list[str]:
    """The norm between the last block and the head, such as transformer.ln_f; not one of the embeddings."""
    return [
        path
        for path, module in model.named_modules()
        if is_norm(module) and layer(path) is None and "embed" not in path
    ]


def before_attention(path: str) -> bool:
    """Whether a norm of a block is the one before its attention; with a ReLU after it, it has a path of its own."""
    return any(part in BEFORE_ATTENTION for part in path.split("."))


def activations(model: nn.Module) -> list[str]:
    """The activations of FFNs, modules of their own in every family of today."""
    return _named(model, ACTIVATIONS)


def attentions(model: nn.Module) -> list[str]:
    """The attention modules, the innermost where one holds another: they return the output and the weights."""
    found = [path for path in _named(model, ATTENTIONS) if layer(path) is not None]
    return [path for path in found if not any(other.startswith(f"{path}.") for other in found)]


def ffns(model: nn.Module) -> list[str]:
    """The FFNs that are modules of their own, those that were dropped aside; OPT has none."""
    return [path for path in _named(model, FFNS) if not isinstance(model.get_submodule(path), NoFFN)]


def _named(model: nn.Module, names: tuple[str, ...]) -> list[str]:
    return [path for path, _ in model.named_modules() if path.rpartition(".")[2] in names]


def layer(path: str) -> int | None:
    """The number of the block that a module lies in; None outside the blocks."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)
