"""Where things are in a Hugging Face causal language model of any family: attention modules and blocks, in order."""

from torch import nn

from pi_sim.errors import UsageError

Named = list[tuple[str, nn.Module]]


def attentions(model: nn.Module) -> Named:
    """(path, module) of every layer's attention; Hugging Face families name these classes alike."""
    found = [(path, part) for path, part in model.named_modules() if type(part).__name__.endswith("Attention")]
    if not found:
        raise UsageError(f"{type(model).__name__} has no module whose class is called an Attention.")
    return found


def blocks(model: nn.Module) -> Named:
    """(path, module) of every layer's block: what is numbered around an attention, such as transformer.h.3."""
    paths = [block_path(path) for path, _ in attentions(model)]
    return [(path, model.get_submodule(path)) for path in paths]


def block_path(path: str) -> str:
    """The block's path in that of a module inside it; empty for a module outside all blocks."""
    parts = path.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), -1)
    return ".".join(parts[: number + 1])
