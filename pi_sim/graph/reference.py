"""The plain reading of a graph: ordinary PyTorch on the weights, for reference logits and the ranges of activations."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from pi_sim.graph.ops import Graph, Node


def evaluate(
    graph: Graph, weights: Mapping[str, Tensor], tokens: Tensor, inputs: Mapping[str, Tensor] = MappingProxyType({})
) -> Iterator[tuple[Node, list[Tensor], Tensor]]:
    """Every node with its operands and its value, in order; the last value is the result, such as logits (B, T, V).

    Tokens are the ids (B, T) here, which a secure computation has as one-hot vectors; `inputs` are the other inputs.
    """
    values: dict[str, Tensor] = {**weights, **graph.constants, "tokens": tokens, **inputs}
    last = graph.last_uses()
    for index, node in enumerate(graph.nodes):
        operands = [values[name] for name in node.inputs]
        values[node.name] = REFERENCE[node.op.name](*operands, **dict(node.op.attributes))
        yield node, operands, values[node.name]
        for name in node.inputs:
            if last[name] == index:
                values.pop(name, None)


def reference_logits(graph: Graph, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """The logits (B, T, V) of token ids (B, T)."""
    return [value for _, _, value in evaluate(graph, weights, tokens)][-1]


def _look_up(table: Tensor, indices: Tensor) -> Tensor:
    return functional.embedding(indices, table)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, client_only: bool = False) -> Tensor:
    return x @ weight if bias is None else x @ weight + bias


def _layernorm(x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, *, eps: float) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], gamma, beta, eps)


def _rmsnorm(x: Tensor, gamma: Tensor | None = None, *, eps: float) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], gamma, eps)


def _softmax(scores: Tensor, allowed: Tensor | None = None, *, causal: bool = False) -> Tensor:
    return functional.softmax(scores if allowed is None else scores.masked_fill(~allowed, -torch.inf), -1)


REFERENCE: dict[str, Callable[..., Tensor]] = {
    "embedding": _look_up,
    "lookup": _look_up,
    "linear": _linear,
    "matmul": torch.matmul,
    "multiply": torch.mul,
    "square": torch.square,
    "reciprocal": torch.reciprocal,
    "layernorm": _layernorm,
    "rmsnorm": _rmsnorm,
    "softmax": _softmax,
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "clamp": lambda x, low, high: x.clamp(low, high),
    "add": torch.add,
    "neg": torch.neg,
    "sum": lambda x, dim: x.sum(dim, keepdim=True),
    "mask": lambda x, allowed: torch.where(allowed, x, 0.0),
    "scale": lambda x, factor: x * factor,
    "scale_by": torch.mul,
    "view": lambda x, shape: x.reshape(shape),
    "expand": lambda x, shape: x.expand(shape),
    "transpose": torch.transpose,
    "slice": lambda x, dim, start, stop: x.narrow(dim, start, stop - start),
    "concat": lambda *parts, dim: torch.cat(parts, dim),
    "reveal": lambda x: x,
}
