"""The short diagnosis that a training takes along its way."""

from typing import Any

from torch import Tensor, nn

from pi_sim.diagnosis.entropy import EntropyProbe
from pi_sim.diagnosis.finite import NonFiniteCounts
from pi_sim.diagnosis.learned import LearnedAlphas, LearnedSlopes
from pi_sim.diagnosis.probe import run_probes


def quick_diagnosis(model: nn.Module, ids: Tensor) -> dict[str, Any]:
    """What one forward pass over token ids (B, T) shows of a causal language model, as JSON values.

    - entropy, entropy_share: by layer and head, in nats and as a share of the maximum; null where there is NaN
    - overload, collapse: parts of all heads (see `pi_sim.diagnosis.entropy`)
    - non_finite: counts of "nan" and "inf" in each block's output
    - slopes: by layer, null in a layer that has none; absent where no layer has one
    - alphas: {module, alpha, inverse_std} of every DyT and Derf; absent where there are none
    """
    return run_probes(model, [ids], [EntropyProbe(), NonFiniteCounts(), LearnedSlopes(), LearnedAlphas()])
