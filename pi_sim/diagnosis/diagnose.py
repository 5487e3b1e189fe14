"""The short diagnosis that a training takes along its way."""

# MERGED: The whole diagnosis of a model: one sequence at a time, every reduction at once, nothing kept but sums.

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from pi_sim.diagnosis.entropy import EntropyProbe, head_fraction, is_collapsed, is_overloaded
from pi_sim.diagnosis.hooks import LearnedAlphas, LearnedSlopes, NonFiniteCounts, PreActivationProbe, run_probes
from pi_sim.diagnosis.ranges import ObservedGraph, Quantity, RangeObserver, TruncationObserver
from pi_sim.diagnosis.sparsity import SparsityProbe, uncounted_matrices
from pi_sim.errors import UsageError
from pi_sim.graph.capture import capture_model


def quick_diagnosis(model: nn.Module, ids: Tensor) -> dict[str, Any]:
    """What one forward pass over token ids (B, T) shows of a causal language model, as JSON values.

    - entropy, entropy_share: by layer and head, in nats and as a share of the maximum; null where there is NaN
    - overload, collapse: parts of all heads (see `pi_sim.diagnosis.entropy`)
    - non_finite: counts of "nan" and "inf" in each block's output
    - slopes: by layer, null in a layer that has none; absent where no layer has one
    - alphas: {module, alpha, inverse_std} of every DyT and Derf; absent where there are none
    """
    return run_probes(model, [ids], [EntropyProbe(), NonFiniteCounts(), LearnedSlopes(), LearnedAlphas()])


Advance = Callable[[float], None]


def diagnose(model: PreTrainedModel, ids: Tensor, quantities: list[Quantity], advance: Advance) -> dict[str, Any]:
    """What token ids (N, T) show of a causal language model, as JSON values; `advance` is told the share done.

    The keys of `pi_sim.diagnosis.diagnose.observe`, and beside them

    - by_layer: overload and collapse, as parts of a layer's heads
    - sparsity: by role ("qkv", "up", "down") and layer, null where a layer has none
    - flops: of a token in the blocks' matrices "per_token", what zeros save of them in the clear, and the share
    - histograms: {module, layer, reach, counts, below, above, negative} of each activation's input
    - ranges: {op, quantity, module, layer, min, max, largest, fits} in fixed point, with {kernel, domain, in_domain}
      where a kernel asks for the quantity; empty where the model cannot be captured
    - truncations: {op, module, layer, expected_failures}, as expected in a sequence; likewise
    - missing: sentences that say what is not there and why
    """
    reading, missing = _prepare_graph(model, ids.shape[1], quantities)
    probes = [
        EntropyProbe(),
        NonFiniteCounts(),
        LearnedSlopes(),
        LearnedAlphas(),
        SparsityProbe(),
        PreActivationProbe(),
    ]
    found = run_probes(model, _single_sequences(ids, reading, advance), probes)
    shares = found["entropy_share"]
    limits = {"overload": is_overloaded, "collapse": is_collapsed}
    found["by_layer"] = {name: [head_fraction([heads], beyond) for heads in shares] for name, beyond in limits.items()}
    read = reading.results() if reading else {"ranges": [], "truncations": []}
    return {**found, **read, "missing": missing + uncounted_matrices(model)}


def _prepare_graph(
    model: PreTrainedModel, length: int, quantities: list[Quantity]
) -> tuple[ObservedGraph | None, list[str]]:
    """Nothing to read, and why, where an operation is not known."""
    try:
        graph = capture_model(model, length)
    except UsageError as error:
        return None, [f"Ranges are missing, because the model cannot be captured: {error}"]
    return ObservedGraph(graph, model.state_dict(), [RangeObserver(graph, quantities), TruncationObserver()]), []


def _single_sequences(ids: Tensor, reading: ObservedGraph | None, advance: Advance) -> Iterator[Tensor]:
    """Each sequence (1, T) for the probes; once they have seen it, its operations."""
    for done, sequence in enumerate(ids, start=1):
        yield sequence[None]
        if reading:
            reading.evaluate(sequence[None])
        advance(done / len(ids))
