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
    return _Walk(export(model, length, batch), Builder((batch, length), model.config.vocab_size)).graph()


def export(model: "PreTrainedModel", length: int, batch: int) -> torch.export.ExportedProgram:
    """The model's forward pass as an ATen graph."""
    tokens = torch.zeros(batch, length, dtype=torch.long, device=model.device)
    options = {"use_cache": False, "return_dict": True}
    try:
        with torch.no_grad():
            return torch.export.export(model, (tokens,), options, strict=False)
    except Exception as error:  # torch.export raises nearly anything for a model that it cannot trace
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"torch.export cannot trace this model: {reason}") from None


class _Walk:
    """Visits the nodes of an exported program in order; `values` holds what each of them became."""

    def __init__(self, program: torch.export.ExportedProgram, builder: Builder) -> None:
        self.program = program
        self.builder = builder
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
        return self.builder.tokens if node.name == signature.user_inputs[0] else None

    def buffer(self, name: str) -> Any:
        """A public tensor of the model; on the meta device it may have no data to fold."""
        value = self.program.state_dict.get(name, self.program.constants.get(name))
        if not isinstance(value, Tensor) or value.is_meta:
            raise UsageError(f"the model's buffer {name} has no data; only models of GPT-2's kind are captured so far.")
        return value

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
    on_cpu = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items()}
    return node.target(*args, **on_cpu)  # type: ignore[operator, no-any-return]


def _module(node: torch.fx.Node) -> str:
    """The path of the innermost module that the node came from."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0])
