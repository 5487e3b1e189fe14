"""Surgery: swap the norms and activations of any Hugging Face model, and let its config.json tell so.

A plan is a table such as {"norm": "none", "final_norm": "none", "activation": "relu"}; what it does not name is
left as it is. It travels in config.json under `pi_sim`, from which `zoo.build.load` rebuilds the same model.
"""

from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from pi_sim.errors import UsageError

Plan = dict[str, str]
Matches = Callable[[str, nn.Module], bool]
Make = Callable[[nn.Module], nn.Module]

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2", "silu", "swish")
ACTIVATION_TYPES = tuple({type(ACT2FN[name]) for name in ACTIVATIONS} | {nn.GELU, nn.SiLU})
NORMS: dict[str, Make] = {"none": lambda norm: nn.Identity()}


def operate(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Carry out the plan on the model, in place, and record it in the model's config."""
    for key, value in plan.items():
        if not swap(model, *_operation(key, value)):
            raise UsageError(f"{type(model).__name__} has no {key} that surgery could make {value}.")
    model.config.pi_sim = {**getattr(model.config, "pi_sim", {}), **plan}
    return model


def _operation(key: str, value: str) -> tuple[Matches, Make]:
    """What one line of a plan replaces, and by what."""
    if key == "activation" and value in ACTIVATIONS:
        return is_activation, lambda old: ACT2FN[value]
    if key == "norm" and value in NORMS:
        return is_block_norm, NORMS[value]
    if key == "final_norm" and value in NORMS:
        return is_final_norm, NORMS[value]
    raise UsageError(f"there is no surgery {key} = {value!r}; known: norm, final_norm (none), activation.")


def swap(model: nn.Module, matches: Matches, make: Make) -> list[str]:
    """Replace every submodule that matches by what `make` makes of it; the paths of those replaced."""
    found = [(path, module) for path, module in model.named_modules() if matches(path, module)]
    for path, module in found:
        model.set_submodule(path, make(module))
    return [path for path, _ in found]


def is_activation(path: str, module: nn.Module) -> bool:
    """An activation that is a module of its own, as Hugging Face's `act` modules are."""
    return isinstance(module, ACTIVATION_TYPES)


def is_norm(module: nn.Module) -> bool:
    """A LayerNorm or an RMSNorm; Hugging Face families define classes of their own, but name them alike."""
    return type(module).__name__.endswith(("LayerNorm", "RMSNorm"))


def is_block_norm(path: str, module: nn.Module) -> bool:
    """A norm inside one of the numbered blocks, such as transformer.h.3.ln_1."""
    return is_norm(module) and _numbered(path)


def is_final_norm(path: str, module: nn.Module) -> bool:
    """The norm between the last block and the head, such as transformer.ln_f; not one of the embeddings."""
    return is_norm(module) and not _numbered(path) and "embed" not in path


def _numbered(path: str) -> bool:
    return any(part.isdigit() for part in path.split("."))
