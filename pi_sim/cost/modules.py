"""Estimates of torch modules: the price of one call, from a trace of the module and its inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from pi_sim.cost.census import Census, read_length
from pi_sim.cost.cost import Machine
from pi_sim.cost.estimate import Estimate, estimate_censuses
from pi_sim.cost.pricing import PricedProtocol, executable_or_none
from pi_sim.errors import UsageError
from pi_sim.graph.capture import capture_model, forward_kwargs, trace_module
from pi_sim.graph.ops import Graph, Shape
from pi_sim.mpc.rewriting import rewrite_graph
from pi_sim.network import Network
from pi_sim.zoo.source import OWN_SIZE, ConfigObject

ExampleInputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""A tensor, positional arguments, or named ones."""


def estimate_module(
    model: nn.Module,
    example_inputs: ExampleInputs | None,
    protocol: PricedProtocol,
    networks: list[Network],
    *,
    seq_len: int | None = None,
    batch: int = 1,
    past: int | None = None,
    inner: bool = False,
    machine: Machine | None = None,
) -> Estimate:
    """Price one call of a module under a protocol. Of a transformers model the inputs are known.

    Raises `UsageError` for another module without inputs, and for inputs beside a length or a batch.
    """
    if example_inputs is None:
        graph = _capture_known_inputs(model, seq_len, batch, past)
    elif (seq_len, batch, past) == (None, 1, None):
        graph = _trace_call(model, example_inputs)
    else:
        raise UsageError("example_inputs have a length and a batch of their own; leave seq_len, batch and past out.")
    batch, length = _batch_and_tokens(graph)
    if executable := executable_or_none(protocol):
        graph = rewrite_graph(graph, executable).graph
    census = Census.from_graph(graph)
    if inner:
        census = census.without_embedding_and_head()
    scenario = {"model": type(model).__name__, "size": OWN_SIZE, "seq_len": length, "batch": batch}
    return estimate_censuses([census], protocol, networks, machine, past=past, only_inner=inner, **scenario)


def _capture_known_inputs(model: nn.Module, seq_len: int | None, batch: int, past: int | None) -> Graph:
    """Return the graph of a transformers model."""
    if not isinstance(model, PreTrainedModel):
        name = type(model).__name__
        raise UsageError(f"the inputs of {name} are not known; give example_inputs: a tensor, a tuple or a dict.")
    return capture_model(model, read_length(ConfigObject.of(model.config), seq_len, past), batch, past)


def _trace_call(model: nn.Module, example_inputs: ExampleInputs) -> Graph:
    """Return the graph of a module's call; a transformers model is called without a KV cache."""
    options = forward_kwargs(model) if hasattr(model, "can_generate") else {}
    if isinstance(example_inputs, Mapping):
        return trace_module(model, (), {**options, **example_inputs})
    positional = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    return trace_module(model, positional, options)


def _batch_and_tokens(graph: Graph) -> tuple[int, int]:
    """Return (batch, tokens) of the first input; one token unless it is ids (B, T) or vectors (B, T, d)."""
    shape: Shape = graph.input or next(iter(graph.inputs.values()), ())
    return shape[0] if shape else 1, shape[1] if len(shape) in (2, 3) else 1
