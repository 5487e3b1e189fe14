"""Lowering of an exported program to the secrecy-typed Graph.

Secrecy propagates from the parameters and the inputs. Values that depend on public values alone (masks, position ids)
are computed once, here, and become constants; operations on secrets are translated by `pi_sim.graph.aten`. Buffers are
public: those of a model on the meta device are taken from a second model, whose weights take no memory.
"""

import operator
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pi_sim.errors import UsageError
from pi_sim.graph.aten import aten_name, math, shapes, translate  # noqa: F401  (math and shapes register translators)
from pi_sim.graph.builder import Builder, MaskedScores, Secret, Tokens
from pi_sim.graph.ops import Graph, Shape, mark_client_only, mark_reused_weights, place_cached_rows, prune

CPU = torch.device("cpu")


class Tracing(NamedTuple):
    """A traced call that lowers to a graph, and the names of its last outputs, which are cached."""

    program: torch.export.ExportedProgram
    graph: Graph
    cached: Sequence[str]


class Lowering:
    """Lowering of one exported program: its nodes are visited in order, and `values` holds the value of each.

    `inputs` are example values of its inputs in order; integers that are not tokens become constants of the graph.
    `cached` names the last outputs: rows that the next decoding step reads, which stay shared.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        program: torch.export.ExportedProgram,
        inputs: list[Any],
        cached: Sequence[str] = (),
    ) -> None:
        self.cached = cached
        self.model, self.program, self.builder = model, program, Builder()
        names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
        self.example_values = dict(zip(names, inputs, strict=True))
        self.embedding_index_nodes = find_embedding_index_nodes(program.graph)
        if "attention_mask" not in names:
            self.builder.padding = getattr(getattr(model, "config", None), "pad_token_id", None)
        self.values: dict[torch.fx.Node, Any] = {}
        self.last_uses = find_last_uses(program.graph)

    def lower(self) -> Graph:
        """Return the graph of all nodes that a result needs, with the linear maps that only the client reads marked."""
        methods = {
            "placeholder": self.lower_placeholder,
            "call_function": self.lower_call,
            "output": self.lower_output,
        }
        for node in self.program.graph.nodes:
            self.values[node] = methods[node.op](node)
            for unused in self.last_uses[node]:
                del self.values[unused]
        return mark_reused_weights(mark_client_only(prune(place_cached_rows(self.builder.graph))))

    def lower_placeholder(self, node: torch.fx.Node) -> Any:
        """Return a secret for a parameter, the value of a buffer or constant, or an input (see `lower_input`)."""
        signature = self.program.graph_signature
        if node.name in signature.inputs_to_parameters:
            return self.builder.add_weight(signature.inputs_to_parameters[node.name], tuple(node.meta["val"].shape))
        if node.name in signature.inputs_to_buffers:
            return self.lower_buffer(signature.inputs_to_buffers[node.name])
        if node.name in signature.inputs_to_lifted_tensor_constants:
            return self.lower_constant(signature.inputs_to_lifted_tensor_constants[node.name])
        return self.lower_input(node)

    def lower_input(self, node: torch.fx.Node) -> Any:
        """Return a secret for real numbers and for integers that index an embedding, and any other input as it is."""
        value = self.example_values[node.name]
        if not isinstance(value, Tensor):
            return value
        if value.is_floating_point():
            return self.builder.add_real_input(node.name, tuple(value.shape))
        if node in self.embedding_index_nodes and value.dtype != torch.bool:
            return self.builder.add_tokens(node.name, tuple(value.shape))
        if value.is_meta:
            raise UsageError(f"the input {node.name} is public and has no data on the meta device; give it on the CPU.")
        return value.cpu()

    def lower_constant(self, name: str) -> Any:
        """Return a public tensor that the program makes; on the meta device only an empty one has a value."""
        value = self.program.constants[name]
        if isinstance(value, Tensor) and value.is_meta:
            if value.numel():
                raise UsageError("the model makes constants on the meta device, where they have no data; use the CPU.")
            return torch.empty(value.shape, dtype=value.dtype)
        return value.cpu() if isinstance(value, Tensor) else value

    def lower_buffer(self, name: str) -> Tensor:
        """Return a public tensor of the model; on the meta device, where it has no data, that of the rebuilt model."""
        value = self.program.state_dict.get(name, self.program.constants.get(name))
        if isinstance(value, Tensor) and value.is_meta:
            value = self.rebuilt_buffers.get(name)
        if not isinstance(value, Tensor) or value.is_meta:
            raise UsageError(f"the model's buffer {name} has no data on the meta device; load the weights.")
        return value.cpu()

    @cached_property
    def rebuilt_buffers(self) -> dict[str, Tensor]:
        """The buffers of a second model of the same class and config; none if it cannot be built from the config."""
        kind, config = type(self.model), getattr(self.model, "config", None)
        try:
            with CPU, RealBuffersOnly():
                return dict(kind(config).named_buffers())
        except Exception:  # classes outside transformers may need other arguments
            return {}

    def lower_call(self, node: torch.fx.Node) -> Any:
        """Evaluate an operation on public values, translate one on secrets."""
        args, kwargs = (torch.fx.map_arg(group, self.values.__getitem__) for group in self.arguments(node))
        if node.target is operator.getitem:
            return args[0][args[1]]
        if not any(isinstance(leaf, Secret | MaskedScores) for leaf in pytree.tree_leaves((args, kwargs))):
            return _fold_public_call(node, args, kwargs)
        stack = node.meta.get("nn_module_stack") or {"": ("", None)}
        self.builder.module = str(list(stack.values())[-1][0])  # path of the innermost module
        return translate(self.builder, node, self.result_shape(node), args, kwargs)

    def arguments(self, node: torch.fx.Node) -> tuple[Any, Any]:
        """Return the positional arguments of an operation, and those by name."""
        return node.args, dict(node.kwargs)

    def result_shape(self, node: torch.fx.Node) -> Shape:
        """Return the shape of an operation's result, () if it is no tensor."""
        value = node.meta.get("val")
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    def lower_output(self, node: torch.fx.Node) -> None:
        """Cache the last outputs, and open every other secret one to the client.

        Raises `UsageError` without one to open, or if one cannot be opened.
        """
        self.builder.module = "output"
        outputs = self.program.graph_signature.user_outputs
        nodes = [arg for arg in node.args[0] if isinstance(arg, torch.fx.Node) and arg.name in outputs]  # type: ignore[union-attr]
        results = [self.values[node] for node in nodes]
        opened = len(results) - len(self.cached)
        for name, rows in zip(self.cached, results[opened:], strict=True):
            self.builder.keep_rows(name, rows)
        for result in results[:opened]:
            if isinstance(result, MaskedScores | Tokens):
                raise UsageError("the model returns its tokens or masked scores, which cannot be opened.")
            if isinstance(result, Secret):
                self.builder.emit("reveal", [result], result.shape)
        if not any(node.op.name == "reveal" for node in self.builder.graph.nodes):
            raise UsageError("the model returns nothing that depends on its inputs or weights.")


def _fold_public_call(node: torch.fx.Node, args: Any, kwargs: dict[str, Any]) -> Tensor | None:
    """Return the value of an operation on public values, computed on the CPU; None for an assertion."""
    if "_assert" in str(node.target):
        return None
    on_cpu = [CPU if isinstance(value, torch.device) else value for value in args]
    return node.target(*on_cpu, **{key: CPU if key == "device" else value for key, value in kwargs.items()})  # type: ignore[operator, no-any-return]


def find_embedding_index_nodes(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """Return every node that the indices of an embedding depend on: an input among them may be tokens."""
    sources: set[torch.fx.Node] = set()
    pending = [node.args[1] for node in graph.nodes if aten_name(node) == "embedding"]
    while pending:
        node = pending.pop()
        if isinstance(node, torch.fx.Node) and node not in sources:
            sources.add(node)
            pending.extend(node.all_input_nodes)
    return sources


def find_last_uses(graph: torch.fx.Graph) -> dict[torch.fx.Node, list[torch.fx.Node]]:
    """Return for each node the values that it reads last, so that large masks can be freed."""
    last_reader = {value: node for node in graph.nodes for value in node.all_input_nodes}
    last_uses: dict[torch.fx.Node, list[torch.fx.Node]] = defaultdict(list)
    for value, node in last_reader.items():
        last_uses[node].append(value)
    return last_uses


class RealBuffersOnly(TorchFunctionMode):
    """Mode in which uninitialised tensors, as large weights are at first, have no data; computed ones are real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **device})
