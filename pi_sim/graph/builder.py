"""Appends nodes to a Graph while capture walks through a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pi_sim.graph.ops import Attribute, Graph, Node, Op, Shape


@dataclass(frozen=True)
class Secret:
    """A secret value during capture: the name of the node, weight or input that holds it."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Masked:
    """Secret scores to which a mask of very negative numbers was added: only softmax may follow."""

    scores: Secret
    allowed: Tensor


class Builder:
    """A graph under construction; `module` is the path that the next nodes are attributed to."""

    def __init__(self, tokens: Shape, vocabulary: int) -> None:
        self.graph = Graph(tokens, vocabulary)
        self.tokens = Secret("tokens", tokens)
        self.onehot = Secret("tokens", (*tokens, vocabulary))
        self.module = ""

    def weight(self, name: str, shape: Shape) -> Secret:
        """Register a secret weight under its name in the state dict."""
        self.graph.weights[name] = shape
        return Secret(name, shape)

    def constant(self, value: Tensor) -> str:
        """Register a public tensor; equal tensors share one name."""
        for name, known in self.graph.constants.items():
            if known.shape == value.shape and known.dtype == value.dtype and bool((known == value).all()):
                return name
        name = f"constant{len(self.graph.constants)}"
        self.graph.constants[name] = value
        return name

    def emit(self, name: str, operands: Sequence[Secret | Tensor], result: Shape, **attributes: Attribute) -> Secret:
        """Append an operation with a result of that shape; public operands become constants."""
        op = Op(
            name,
            tuple(tuple(operand.shape) for operand in operands),
            tuple(isinstance(operand, Secret) for operand in operands),
            tuple(sorted(attributes.items())),
        )
        inputs = tuple(item.name if isinstance(item, Secret) else self.constant(item) for item in operands)
        node = Node(f"{name}{len(self.graph.nodes)}", op, inputs, self.module)
        self.graph.nodes.append(node)
        return Secret(node.name, result)
