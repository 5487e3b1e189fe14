"""Plaintext evaluation of a graph by PyTorch, for reference logits and the ranges of activations."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import Tensor

from pi_sim.graph.ops import Graph, Node
from pi_sim.graph.vocabulary import VOCABULARY


def evaluate(
    graph: Graph, weights: Mapping[str, Tensor], tokens: Tensor, inputs: Mapping[str, Tensor] = MappingProxyType({})
) -> Iterator[tuple[Node, list[Tensor], Tensor]]:
    """Yield every node in order with its operands and its value; the last value is the result, e.g. logits (B, T, V).

    `tokens` are ids (B, T), where a secure computation has one-hot vectors; `inputs` are the other inputs.
    """
    values: dict[str, Tensor] = {**weights, **graph.constants, "tokens": tokens, **inputs}
    last_uses = graph.last_uses()
    for index, node in enumerate(graph.nodes):
        operands = [values[name] for name in node.inputs]
        values[node.name] = VOCABULARY[node.op.name].reference(*operands, **node.op.semantics)
        yield node, operands, values[node.name]
        for name in node.inputs:
            if last_uses[name] == index:
                values.pop(name, None)


def reference_logits(graph: Graph, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Return the logits (B, T, V) of token ids (B, T)."""
    return [value for _, _, value in evaluate(graph, weights, tokens)][-1]
