"""Diagnosis of a causal language model: a quick one during training, and a full one with ranges for fixed point.

Sequences are evaluated singly, and every tensor is reduced at once: nothing but sums is stored.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from pi_sim.diagnosis import hooks
from pi_sim.diagnosis.entropy import EntropyProbe, head_fraction, is_collapsed, is_overloaded
from pi_sim.diagnosis.ranges import ObservedGraph, Quantity, RangeObserver, TruncationObserver
from pi_sim.errors import UsageError
from pi_sim.graph.capture import capture_model

Advance = Callable[[float], None]
QUICK_PROBES = (EntropyProbe, hooks.NonFiniteCounts, hooks.LearnedSlopes, hooks.LearnedAlphas)


def quick_diagnosis(model: nn.Module, ids: Tensor) -> dict[str, Any]:
    """Return a diagnosis of one forward pass over token ids (B, T), as JSON values.

    - entropy, entropy_share: by layer and head, in nats and as a share of the maximum; null where there is NaN
    - overload, collapse: fractions of all heads (see `pi_sim.diagnosis.entropy`)
    - non_finite: counts of "nan" and "inf" in each block's output
    - slopes: by layer, null in a layer that has none; absent where no layer has one
    - alphas: {module, alpha, inverse_std} of every DyT and Derf; absent where there are none
    """
    return hooks.run_probes(model, [ids], [probe() for probe in QUICK_PROBES])


def diagnose(model: PreTrainedModel, ids: Tensor, quantities: list[Quantity], advance: Advance) -> dict[str, Any]:
    """Return the full diagnosis on token ids (N, T), as JSON values; `advance` receives the completed share.

    It has the keys of `quick_diagnosis` and

    - by_layer: overload and collapse, as fractions of a layer's heads
    - sparsity: by role ("qkv", "up", "down") and layer, null where a layer has none
    - flops: of a token in the blocks' matrices "per_token", those that zeros save on plaintext "saved", and the share
    - histograms: {module, layer, reach, counts, below, above, negative} of each activation's input
    - ranges: {op, quantity, module, layer, min, max, largest, fits} in fixed point, with {kernel, domain, in_domain}
      for a quantity that a kernel's domain bounds; empty where the model cannot be captured
    - truncations: {op, module, layer, expected_failures}, expected per sequence; likewise
    - missing: sentences that name missing parts and their reasons
    """
    observed_graph, missing = _prepare_graph(model, ids.shape[1], quantities)
    probes = [*(probe() for probe in QUICK_PROBES), hooks.SparsityProbe(), hooks.PreActivationProbe()]
    diagnosis = hooks.run_probes(model, _single_sequences(ids, observed_graph, advance), probes)
    shares = diagnosis["entropy_share"]
    limits = {"overload": is_overloaded, "collapse": is_collapsed}
    diagnosis["by_layer"] = {
        name: [head_fraction([heads], is_beyond) for heads in shares] for name, is_beyond in limits.items()
    }
    graph_results = observed_graph.results() if observed_graph else {"ranges": [], "truncations": []}
    return {**diagnosis, **graph_results, "missing": missing + hooks.uncounted_matrices(model)}


def _prepare_graph(
    model: PreTrainedModel, length: int, quantities: list[Quantity]
) -> tuple[ObservedGraph | None, list[str]]:
    """Return the model's graph with its observers, or None and the reason where the model cannot be captured."""
    try:
        graph = capture_model(model, length)
    except UsageError as error:
        return None, [f"Ranges are missing, because the model cannot be captured: {error}"]
    return ObservedGraph(graph, model.state_dict(), [RangeObserver(graph, quantities), TruncationObserver()]), []


def _single_sequences(ids: Tensor, observed_graph: ObservedGraph | None, advance: Advance) -> Iterator[Tensor]:
    """Yield each sequence (1, T) to the probes, then evaluate the graph on it."""
    for done, sequence in enumerate(ids, start=1):
        yield sequence[None]
        if observed_graph:
            observed_graph.evaluate(sequence[None])
        advance(done / len(ids))
