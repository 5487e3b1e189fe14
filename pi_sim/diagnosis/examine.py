"""The whole diagnosis of a model: one sequence at a time, every reduction at once, nothing kept but sums."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from pi_sim.diagnosis.entropy import Entropy, collapsed, overloaded, part
from pi_sim.diagnosis.finite import NotFinite
from pi_sim.diagnosis.histogram import PreActivations
from pi_sim.diagnosis.learned import Alphas, Slopes
from pi_sim.diagnosis.probe import watch
from pi_sim.diagnosis.ranges import Quantity, Ranges
from pi_sim.diagnosis.reading import Reading
from pi_sim.diagnosis.sparsity import Sparsity, unseen
from pi_sim.diagnosis.truncations import Truncations
from pi_sim.errors import UsageError
from pi_sim.graph.capture import capture

Advance = Callable[[float], None]


def examine(model: PreTrainedModel, ids: Tensor, quantities: list[Quantity], advance: Advance) -> dict[str, Any]:
    """What token ids (N, T) show of a causal language model, as JSON values; `advance` is told the share done.

    The keys of `pi_sim.diagnosis.brief.observe`, and beside them

    - by_layer: overload and collapse, as parts of a layer's heads
    - sparsity: by role ("qkv", "up", "down") and layer, null where a layer has none
    - flops: of a token in the blocks' matrices "per_token", what zeros save of them in the clear, and the share
    - histograms: {module, layer, reach, counts, below, above, negative} of each activation's input
    - ranges: {op, quantity, module, layer, min, max, largest, fits} in fixed point, with {kernel, domain, in_domain}
      where a kernel asks for the quantity; empty where the model cannot be captured
    - truncations: {op, module, layer, expected_failures}, as expected in a sequence; likewise
    - missing: sentences that say what is not there and why
    """
    reading, missing = _reading(model, ids.shape[1], quantities)
    probes = [Entropy(), NotFinite(), Slopes(), Alphas(), Sparsity(), PreActivations()]
    found = watch(model, _one_by_one(ids, reading, advance), probes)
    shares = found["entropy_share"]
    limits = {"overload": overloaded, "collapse": collapsed}
    found["by_layer"] = {name: [part([heads], beyond) for heads in shares] for name, beyond in limits.items()}
    read = reading.results() if reading else {"ranges": [], "truncations": []}
    return {**found, **read, "missing": missing + unseen(model)}


def _reading(model: PreTrainedModel, length: int, quantities: list[Quantity]) -> tuple[Reading | None, list[str]]:
    """Nothing to read, and why, where an operation is not known."""
    try:
        graph = capture(model, length)
    except UsageError as error:
        return None, [f"Ranges are missing, because the model cannot be captured: {error}"]
    return Reading(graph, model.state_dict(), [Ranges(graph, quantities), Truncations()]), []


def _one_by_one(ids: Tensor, reading: Reading | None, advance: Advance) -> Iterator[Tensor]:
    """Each sequence (1, T) for the probes; once they have seen it, its operations."""
    for done, sequence in enumerate(ids, start=1):
        yield sequence[None]
        if reading:
            reading.evaluate(sequence[None])
        advance(done / len(ids))
