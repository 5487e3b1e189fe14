"""Builder of a Graph: lowering appends nodes to it, an operation at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from pi_sim.graph.ops import Attribute, Graph, Node, Op, Shape

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Secret:
    """A secret value during capture: the name of the node, weight or input that holds it."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Tokens(Secret):
    """Secret integers, which only an embedding may read, as one-hot vectors."""


@dataclass(frozen=True)
class MaskedScores:
    """Secret scores under a public mask, true where a score counts: only softmax may follow."""

    scores: Secret
    allowed: Tensor


class Builder:
    """A graph under construction; `module` is the path that the next nodes are attributed to."""

    def __init__(self) -> None:
        self.graph = Graph((), 0)
        self.module = ""
        self.padding: int | None = None
        """The id that no token has, as the texts are not padded; None where they may be."""
        self.producers: dict[str, Node] = {}
        self.weight_values: set[str] = set()
        """Weights, and what follows from weights alone."""
        self.cached_results: dict[tuple[Callable[[Tensor], Any], int], tuple[Tensor, Any]] = {}

    def add_tokens(self, name: str, shape: Shape) -> Tokens:
        """Register a secret input of integers; the first one is the graph's tokens."""
        if self.graph.input:
            return Tokens(f"inputs.{name}", shape)
        self.graph.input = shape
        return Tokens("tokens", shape)

    def one_hot(self, tokens: Tokens, vocabulary: int) -> Secret | None:
        """Return the one-hot vectors of tokens; None if a table of another size has read them before."""
        shape = (*tokens.shape, vocabulary)
        if tokens.name == "tokens":
            self.graph.vocabulary = self.graph.vocabulary or vocabulary
            registered = (*tokens.shape, self.graph.vocabulary)
        else:
            registered = self.graph.inputs.setdefault(tokens.name, shape)
        return Secret(tokens.name, shape) if registered == shape else None

    def add_real_input(self, name: str, shape: Shape) -> Secret:
        """Register a secret input of real numbers."""
        self.graph.inputs[f"inputs.{name}"] = shape
        return Secret(f"inputs.{name}", shape)

    def add_weight(self, name: str, shape: Shape) -> Secret:
        """Register a secret weight under its name in the state dict."""
        self.graph.weights[name] = shape
        self.weight_values.add(name)
        return Secret(name, shape)

    def keep_rows(self, name: str, rows: Secret) -> None:
        """Cache keys or values for the next decoding step, which finds them at the end of its input `name`."""
        cached = {node.inputs[0]: node.name for node in self.graph.nodes if node.op.name == "cache"}
        self.graph.cache[f"inputs.{name}"] = cached.get(rows.name) or self.emit("cache", [rows], rows.shape).name

    def add_constant(self, value: Tensor) -> str:
        """Register a public tensor; equal tensors share one name."""
        for name, constant in self.graph.constants.items():
            if constant is value or (constant.dtype == value.dtype and torch.equal(constant, value)):
                return name
        name = f"constant{len(self.graph.constants)}"
        self.graph.constants[name] = value
        return name

    def compute_once(self, function: Callable[[Tensor], ResultT], value: Tensor) -> ResultT:
        """Return `function(value)`, computed once for a mask that all layers share."""
        key = (function, id(value))
        if key not in self.cached_results:
            self.cached_results[key] = (value, function(value))
        result: ResultT = self.cached_results[key][1]
        return result

    def emit(self, name: str, operands: Sequence[Secret | Tensor], result: Shape, **attributes: Attribute) -> Secret:
        """Append an operation and return its result, of shape `result`; public operands become constants."""
        shapes = tuple(tuple(operand.shape) for operand in operands)
        secret = tuple(isinstance(operand, Secret) for operand in operands)
        op = Op(name, shapes, secret, tuple(sorted(attributes.items())))
        inputs = tuple(item.name if isinstance(item, Secret) else self.add_constant(item) for item in operands)
        node = Node(f"{name}{len(self.graph.nodes)}", op, inputs, self.module)
        self.graph.nodes.append(node)
        self.producers[node.name] = node
        if all(not isinstance(item, Secret) or item.name in self.weight_values for item in operands):
            self.weight_values.add(node.name)
        return Secret(node.name, result)
