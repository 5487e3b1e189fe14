"""For Python: what a call of any torch module costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pi_sim.cost import pricing
from pi_sim.cost.census import Census
from pi_sim.cost.estimate import Estimate
from pi_sim.cost.pricing import price_census
from pi_sim.graph import model_inputs
from pi_sim.graph.capture import trace_module
from pi_sim.graph.ops import Graph, Shape
from pi_sim.network import parse_network

ExampleInputs = Tensor | Sequence[Any] | Mapping[str, Any]


def estimate(
    model: nn.Module, example_inputs: ExampleInputs, protocol: str = "crypten", networks: Sequence[str] = ("lan", "wan")
) -> Estimate:
    """What one call of `model` costs under a protocol: rounds, bytes and seconds, without running it.

    `example_inputs` is a tensor, a tuple of positional arguments or a dict of named ones. Weights, real numbers and
    integers that an embedding looks up are secret, of which only shapes are read; other integers, booleans and the
    model's buffers are public, with their values. Everything that the model returns is opened to the client. The
    module may live on the meta device. Raises `UsageError`, which names the operation, the module and the file to
    edit, for what cannot be expressed or has no price.

    >>> pi_sim.estimate(torch.nn.Linear(768, 3072), torch.zeros(1, 128, 768)).total
    Cost(rounds=2, bytes=22806528, offline=3145728)
    """
    graph = trace_module(model, *_call_arguments(model, example_inputs))
    counted, card = Census.from_graph(graph), pricing.resolve_protocol(protocol)
    batch, length = _batch_and_tokens(graph)
    rows = price_census(counted, card, pricing.protocol_origin(protocol))
    named = [parse_network(name) for name in networks]
    known = pricing.is_offline_known(card)
    return Estimate(
        type(model).__name__,
        "own",
        card.name,
        length,
        rows,
        counted.embedding_and_head,
        named,
        batch,
        offline_known=known,
    )


def _call_arguments(model: nn.Module, example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments; a transformers model answers without a cache for further tokens."""
    options = model_inputs.forward_kwargs(model) if hasattr(model, "can_generate") else {}
    if isinstance(example_inputs, Mapping):
        return (), {**options, **example_inputs}
    return (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs), options


def _batch_and_tokens(graph: Graph) -> tuple[int, int]:
    """(batch, tokens) of the first input; what is no text, nor a series of vectors, counts as one token."""
    shape: Shape = graph.input or next(iter(graph.inputs.values()), ())
    return shape[0] if shape else 1, shape[1] if len(shape) in (2, 3) else 1
