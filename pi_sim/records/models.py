"""Schemas of records of models: trainings, conversions and diagnoses; null replaces NaN and infinities."""

import math
from typing import Any, Literal

from pi_sim.records.envelope import Record
from pi_sim.specs import Architecture, Recipe, TomlModel

Heads = tuple[tuple[float | None, ...], ...]
"""Values by layer and head; null where a probability is NaN."""


class Dimensions(TomlModel):
    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int


class CorpusId(TomlModel):
    name: str
    sha256: str  # of the listing of its texts


class CorpusSeen(CorpusId):
    tokens_seen: int
    epochs: float | None = None  # passes over the training split


class Sample(TomlModel):
    """The loss of the first held-out sequences: a quick check of a checkpoint."""

    sequences: int
    loss: float | None


class HeldOut(TomlModel):
    """Held-out quality: loss in nats per token; null if it overflows."""

    loss: float | None = None
    perplexity: float | None
    bits_per_byte: float | None
    tokens: int
    sample: Sample | None = None


def held_out_perplexity(quality: HeldOut | None) -> float:
    """Return the perplexity, infinite for a training that diverged."""
    return math.inf if quality is None or quality.perplexity is None else quality.perplexity


class NonFinite(TomlModel):
    nan: tuple[int, ...]  # counts in the output of each block
    inf: tuple[int, ...]


class Alpha(TomlModel):
    module: str  # a DyT or Derf
    alpha: float | None
    inverse_std: float | None  # 1 / std of its input


class Attention(TomlModel):
    """Attention entropy in nats and as a share of its maximum, and other measurements of the same forward passes."""

    entropy: Heads
    entropy_share: Heads
    overload: float
    collapse: float
    non_finite: NonFinite
    slopes: tuple[float | None, ...] | None = None
    alphas: tuple[Alpha, ...] | None = None


class Step(TomlModel):
    step: int
    tokens: int
    held_out_loss: float | None


class Observation(Attention, Step):
    """A model at one step of its training, on held-out text."""


class Divergence(TomlModel):
    step: int  # the first whose loss was not finite


class Origin(TomlModel):
    """The checkpoint that a training started from, as its own record describes it."""

    model: str
    kind: str | None = None
    argv: tuple[str, ...] | None = None
    surgery: dict[str, Any] | None = None
    before: HeldOut | None = None
    after: HeldOut | None = None
    held_out: HeldOut | None = None
    source: str | None = None  # the checkpoint that was converted
    origin: "Origin | None" = None

    @property
    def quality(self) -> HeldOut | None:
        """The quality of the model that was converted, or of the one that was not."""
        return self.before if self.surgery else self.held_out


class TrainingRecord(Record):
    kind: Literal["training"] = "training"
    card: str
    size: str
    architecture: Architecture | None  # null for a checkpoint without a record of pi-sim
    dimensions: Dimensions
    recipe: Recipe
    seed: int
    corpus: CorpusSeen
    parameters: int
    trained_parameters: int | None = None
    loss_curve: tuple[tuple[int, float | None], ...]
    observations: tuple[Observation, ...] = ()
    seconds: float
    processes: int = 1
    threads: int | None = None
    device: str | None = None
    diverged: Divergence | None = None
    held_out: HeldOut | None
    origin: Origin | None = None  # of a fine-tuning


class ConversionRecord(Record):
    """Surgery on a trained checkpoint, with the held-out quality before and right after it."""

    kind: Literal["conversion"] = "conversion"
    source: str
    surgery: dict[str, Any]
    card: str | None = None
    size: str | None = None
    dimensions: Dimensions | None = None
    architecture: Architecture | None = None
    corpus: CorpusId
    seq_len: int
    before: HeldOut
    after: HeldOut


class ByLayer(TomlModel):
    overload: tuple[float, ...]  # fractions of a layer's heads
    collapse: tuple[float, ...]


class Sparsity(TomlModel):
    """The share of exact zeros in the inputs of projections, by layer; null where a layer has none."""

    qkv: tuple[float | None, ...]
    up: tuple[float | None, ...]
    down: tuple[float | None, ...]


class Flops(TomlModel):
    per_token: int  # in the blocks' matrices
    saved: float  # by zeros, in plaintext inference
    share: float


class Histogram(TomlModel):
    module: str  # an activation
    layer: int | None
    reach: float
    counts: tuple[int, ...]  # inputs in equal bins from -reach to reach
    below: int
    above: int
    negative: float


class Range(TomlModel):
    op: str
    quantity: str
    module: str
    layer: int | None
    min: float | None
    max: float | None
    largest: float | None
    fits: bool
    kernel: str | None = None  # whose domain bounds the quantity
    domain: tuple[float | None, float | None] | None = None
    in_domain: bool | None = None


class TruncationRisk(TomlModel):
    op: str
    module: str
    layer: int | None
    expected_failures: float  # in a sequence


class DiagnosisRecord(Attention, Record):
    kind: Literal["diagnosis"] = "diagnosis"
    model: str
    size: str
    protocol: str
    text: str
    sequences: int
    seq_len: int
    sparsity: Sparsity
    flops: Flops
    histograms: tuple[Histogram, ...]
    by_layer: ByLayer
    ranges: tuple[Range, ...]
    truncations: tuple[TruncationRisk, ...]
    missing: tuple[str, ...]
