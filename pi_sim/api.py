"""Python interface: the price of one call of any torch module."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pi_sim.cost import pricing
from pi_sim.cost.census import Census
from pi_sim.cost.estimate import Estimate
from pi_sim.cost.pricing import price_census
from pi_sim.graph.capture import forward_kwargs, trace_module
from pi_sim.graph.ops import Graph, Shape
from pi_sim.mpc.rewriting import rewrite_graph
from pi_sim.network import parse_network
from pi_sim.zoo.source import OWN_SIZE

ExampleInputs = Tensor | Sequence[Any] | Mapping[str, Any]


def estimate(
    model: nn.Module, example_inputs: ExampleInputs, protocol: str = "crypten", networks: Sequence[str] = ("lan", "wan")
) -> Estimate:
    """Price one call of `model` under a protocol: rounds, bytes and seconds, without running it.

    `example_inputs` is a tensor, a tuple of positional arguments or a dict of named ones. Weights, real numbers and
    integers that an embedding looks up are secret, of which only shapes are read; other integers, booleans and the
    model's buffers are public, with their values. Everything that the model returns is opened to the client. The
    module may live on the meta device. Raises `UsageError`, which names the operation, the module and the file to
    edit, for what cannot be expressed or has no price.

    >>> pi_sim.estimate(torch.nn.Linear(768, 3072), torch.zeros(1, 128, 768)).total
    Cost(rounds=2, sent=(22806528, 22806528), offline=3145728, serial=22806528, ahead=(0, 0), session=(0, 0))
    """
    graph, resolved = trace_module(model, *_call_arguments(model, example_inputs)), pricing.resolve_protocol(protocol)
    batch, length = _batch_and_tokens(graph)
    if executable := pricing.executable_or_none(resolved):
        graph = rewrite_graph(graph, executable).graph
    census = Census.from_graph(graph)
    return Estimate(
        model=type(model).__name__,
        size=OWN_SIZE,
        protocol=resolved.name,
        seq_len=length,
        rows=price_census(census, resolved),
        embedding_and_head=census.embedding_and_head,
        networks=[parse_network(name) for name in networks],
        batch=batch,
        offline_known=pricing.is_offline_known(resolved),
    )


def _call_arguments(model: nn.Module, example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named arguments; a transformers model is called without a KV cache."""
    options = forward_kwargs(model) if hasattr(model, "can_generate") else {}
    if isinstance(example_inputs, Mapping):
        return (), {**options, **example_inputs}
    return (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs), options


def _batch_and_tokens(graph: Graph) -> tuple[int, int]:
    """Return (batch, tokens) of the first input; one token unless it is ids (B, T) or vectors (B, T, d)."""
    shape: Shape = graph.input or next(iter(graph.inputs.values()), ())
    return shape[0] if shape else 1, shape[1] if len(shape) in (2, 3) else 1
