"""`torch.export` of a Hugging Face causal language model becomes the secrecy-typed Graph.

Secrecy flows from the parameters and the token ids. Whatever depends on public values alone (masks, position ids) is
computed here, once, and becomes a constant; what touches a secret is translated by `pi_sim.graph.aten`.
"""

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pi_sim.errors import UsageError
from pi_sim.graph import aten
from pi_sim.graph.builder import Builder, Masked, Secret
from pi_sim.graph.composites import whole
from pi_sim.graph.ops import Graph

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def capture(model: "PreTrainedModel", length: int, batch: int = 1) -> Graph:
    """The graph of `model`'s logits for (batch, length) token ids.

    The model may live on the meta device: no weight is read. Raises `UsageError` for a sequence longer than the
    model's context, and for a model with an operation outside the vocabulary, naming operation and module.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    if not 1 <= length <= (context or length):
        raise UsageError(f"the model's context is {context} tokens; choose --seq-len between 1 and {context}.")
    return _Walk(model, export(model, length, batch), Builder((batch, length), model.config.vocab_size)).graph()


def export(model: "PreTrainedModel", length: int, batch: int) -> torch.export.ExportedProgram:
    """The model's forward pass as an ATen graph."""
    tokens = torch.zeros(batch, length, dtype=torch.long, device=model.device)
    options = {"use_cache": False, "return_dict": True}
    try:
        with torch.no_grad(), whole(model):
            return torch.export.export(model, (tokens,), options, strict=False)
    except Exception as error:  # torch.export raises nearly anything for a model that it cannot trace
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"torch.export cannot trace this model: {reason}") from None


class _Walk:
    """Visits the nodes of an exported program in order; `values` holds what each of them became."""

    def __init__(self, model: torch.nn.Module, program: torch.export.ExportedProgram, builder: Builder) -> None:
        self.model, self.program, self.builder = model, program, builder
        self.values: dict[torch.fx.Node, Any] = {}

    def graph(self) -> Graph:
        """Translate every node."""
        visit: dict[str, Callable[[torch.fx.Node], Any]] = {
            "placeholder": self.placeholder,
            "call_function": self.call,
            "output": self.output,
        }
        for node in self.program.graph.nodes:
            self.values[node] = visit[node.op](node)
        return self.builder.graph

    def placeholder(self, node: torch.fx.Node) -> Any:
        """A parameter and the first input are secret; buffers are public, options are constants of the export."""
        signature = self.program.graph_signature
        if node.name in signature.inputs_to_parameters:
            return self.builder.weight(signature.inputs_to_parameters[node.name], tuple(node.meta["val"].shape))
        if node.name in signature.inputs_to_buffers:
            return self.buffer(signature.inputs_to_buffers[node.name])
        if node.name in signature.inputs_to_lifted_tensor_constants:
            return self.program.constants[signature.inputs_to_lifted_tensor_constants[node.name]]
        return self.builder.tokens if node.name == signature.user_inputs[0] else None

    def buffer(self, name: str) -> Tensor:
        """A public tensor of the model; on the meta device, where it has no data, its module is made once more."""
        value = self.program.state_dict.get(name, self.program.constants.get(name))
        if isinstance(value, Tensor) and not value.is_meta:
            return value
        path, _, leaf = name.rpartition(".")
        owner: Any = self.model.get_submodule(path)
        try:
            with torch.device("cpu"):
                made: Tensor = getattr(type(owner)(owner.config), leaf)
        except (AttributeError, TypeError):
            raise UsageError(f"the model's buffer {name} has no data on the meta device; load the weights.") from None
        return made

    def call(self, node: torch.fx.Node) -> Any:
        """Fold a public operation into its value, translate a secret one."""
        args: Any = torch.fx.map_arg(node.args, self.values.__getitem__)
        kwargs: Any = torch.fx.map_arg(dict(node.kwargs), self.values.__getitem__)
        if node.target is operator.getitem:
            return args[0][args[1]]
        if not _touches_secret((args, kwargs)):
            return _fold(node, args, kwargs)
        self.builder.module = _module(node)
        return aten.translate(self.builder, node, args, kwargs)

    def output(self, node: torch.fx.Node) -> None:
        """The first output is the logits: they are opened to the client."""
        logits = self.values[node.args[0][0]]  # type: ignore[index]
        self.builder.module = "output"
        self.builder.emit("reveal", [logits], logits.shape)


def _touches_secret(value: Any) -> bool:
    """Whether a secret stands anywhere in nested arguments."""
    if isinstance(value, dict):
        return any(map(_touches_secret, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(_touches_secret, value))
    return isinstance(value, Secret | Masked)


def _fold(node: torch.fx.Node, args: Any, kwargs: dict[str, Any]) -> Tensor | None:
    """The value of an operation on public values, computed on the CPU."""
    if "_assert" in str(node.target):
        return None
    cpu = torch.device("cpu")
    here = [cpu if isinstance(value, torch.device) else value for value in args]
    return node.target(*here, **{key: cpu if key == "device" else value for key, value in kwargs.items()})  # type: ignore[operator, no-any-return]


def _module(node: torch.fx.Node) -> str:
    """The path of the innermost module that the node came from."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0])
