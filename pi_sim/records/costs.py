"""Schemas of records of costs: estimates, private runs, benchmarks and machine profiles.

Optional fields are null where a record could not know them.
"""

from typing import Literal

from pydantic import Field

from pi_sim.records.envelope import Record
from pi_sim.specs import TomlModel

RARE = 0.05
"""Up to this share of corrupted positions is put down to rare events, more to a kernel that is wrong."""
WRONG = 1.1
"""A private perplexity beyond this multiple of the plain one is a wrong result."""


class Price(TomlModel):
    """Rounds and bytes. `offline_bytes` is null where the protocol's sources do not state it."""

    rounds: int
    bytes: int
    offline_bytes: int | None


class Total(Price):
    """A sum of prices, with seconds by network."""

    seconds: dict[str, float]
    compute_seconds: float | None = None


class EstimateRow(TomlModel):
    """The price of one operation of one shape in one module, over all its occurrences."""

    module: str
    op: str
    shapes: str
    count: int
    provenance: str | None = None
    rounds: int
    bytes: int
    offline_bytes: int | None


class Estimated(Record):
    """The fields of an estimate, which runs share."""

    model: str
    size: str
    protocol: str
    seq_len: int
    batch: int = 1
    past: int | None = None
    only_inner: bool = False
    total: Total
    without_embedding_and_head: Total
    session_bytes: int | None = None
    rows: tuple[EstimateRow, ...]
    conventions: tuple[str, ...]


class EstimateRecord(Estimated):
    """An estimate, as `pi-sim estimate --format json` prints it."""

    kind: Literal["estimate"] = "estimate"


class LinkCosts(TomlModel):
    """Seconds that the connection itself takes for a round, and for a megabyte each way."""

    round_seconds: float
    megabyte_seconds: float


class Measured(Price):
    """Counters of one sequence, and one party's mean seconds for it on the critical path."""

    seconds: float
    communication_seconds: float
    late_seconds: float | None = None
    """How late messages of an imitated network arrived, in all."""
    compute_seconds: float
    peer_wait_seconds: float | None = None
    """The part of `compute_seconds` in which this party waited for the peer's computation."""
    setup_seconds: float
    session_bytes: int | None = None
    link: LinkCosts | None = None
    predicted_communication_seconds: float | None = None
    communication_ratio: float | None = None


class PerplexityPair(TomlModel):
    """Plain and private perplexity on the same tokens; null where one overflows or there is no plain model."""

    plain: float | None = None
    private: float | None = None


class Perplexity(PerplexityPair):
    """Perplexities over all positions and, where some are corrupted, over the others."""

    excluding_corrupted: PerplexityPair | None = None


class Agreement(TomlModel):
    """Private logits against plain ones."""

    max_abs: float
    mean_abs: float
    top1: float
    corrupted_positions: int = 0
    """Positions with a logit that is off by more than approximation explains: a truncation failed."""


class RunRecord(Estimated):
    """A private run of two parties on one machine."""

    kind: Literal["run"] = "run"
    sequences: int
    network: str
    dealer: str = "first-party"
    device: str = "cpu"
    measured: Measured
    perplexity: Perplexity
    agreement: Agreement | None = None

    @property
    def drift(self) -> float | None:
        """The relative change of the private perplexity, all positions counted; None where one overflows."""
        plain, private = self.perplexity.plain, self.perplexity.private
        return private / plain - 1 if private and plain else None

    @property
    def compared(self) -> PerplexityPair:
        """Both perplexities, without corrupted positions where these are rare."""
        corrupted = self.agreement.corrupted_positions if self.agreement else 0
        is_rare = 0 < corrupted < RARE * self.sequences * self.seq_len
        return (
            self.perplexity.excluding_corrupted if is_rare and self.perplexity.excluding_corrupted else self.perplexity
        )

    @property
    def is_wrong(self) -> bool:
        """True if the private result differs from the plain one, not at rare positions but throughout."""
        plain, private = self.compared.plain, self.compared.private
        return plain is not None and (private is None or private > WRONG * plain)


class PayloadBytes(TomlModel):
    """Payload of the whole run, as one party's link counted it."""

    sent: int
    received: int


class PartyRecord(Estimated):
    """One party of a run across two machines; only the client knows the logits."""

    kind: Literal["party"] = "party"
    rank: int = Field(ge=0, le=1)
    sequences: int
    dealer: str
    device: str
    encrypted: bool
    measured: Measured
    payload_bytes: PayloadBytes
    perplexity: Perplexity | None = None
    agreement: Agreement | None = None


class BenchSize(TomlModel):
    """How much is measured: by default at the size of a GPT-2 block."""

    tokens: int = Field(default=128, gt=1)
    width: int = Field(default=768, gt=0)
    heads: int = Field(default=12, gt=0)
    vocabulary: int = Field(default=2048, gt=0)
    large_vocabulary: int = Field(default=50257, gt=0)
    """Its embedding is priced and not run."""
    repetitions: int = Field(default=5, gt=0)
    """Of which the quickest counts."""
    sequences: int = Field(default=3, gt=0)
    """Of a whole model, of which the quickest counts."""
    truncations: int = Field(default=10**8, gt=0)
    bounds: tuple[int, ...] = (8, 64)
    """How large factors of truncated products may be, powers of 2: activations, and what fails before one's eyes."""
    models: tuple[str, ...] = ("relu_nonorm", "gelu_ln")
    """Shipped models, at size tiny, that are run beside the block."""


class KernelTiming(TomlModel):
    """One operation by one kernel: what one party sends, and seconds between two processes on one machine.

    `seconds` have party 0 in the dealer's place, `online_seconds` all randomness in memory beforehand; without
    either the operation was priced alone. `error` is the largest distance from the plain value.
    """

    name: str
    shapes: str
    kernel: str
    protocols: tuple[str, ...]
    """All that compute it so, at the same price; the first of them was measured."""
    elements: int
    """Of the result; of a causal softmax, those that the kernel computes."""
    rounds: int
    bytes: int
    offline_bytes: int
    session_bytes: int
    seconds: float | None = None
    online_seconds: float | None = None
    error: float | None = None


class ModelTiming(TomlModel):
    """A whole model under one protocol, with one dealer: counts, and seconds of the quickest sequence."""

    model: str
    protocol: str
    dealer: str
    rounds: int
    bytes: int
    offline_bytes: int
    session_bytes: int
    seconds: float
    communication_seconds: float
    difference: float
    """The largest one between private and plain logits."""


class TruncationTest(TomlModel):
    """Products truncated by one protocol's kernel, of factors up to `bound` in size."""

    protocol: str
    kernel: str
    bound: int
    number: int = 0
    wrong: int = 0
    """By more than two units in the last place."""
    units: int = 0
    """By how many the others are off at most, against the product rounded down."""
    expected_locally: float = 0.0
    """How many of the same products would be wrong if each party shifted its own share: the sum of |x| / 2^64."""


class BenchRecord(Record):
    """All of it. `load` is the machine's mean load before and afterwards, measured by others' work too."""

    kind: Literal["bench"] = "bench"
    extent: BenchSize
    threads: int
    load: tuple[float, float]
    operations: tuple[KernelTiming, ...]
    models: tuple[ModelTiming, ...]
    truncations: tuple[TruncationTest, ...]


class SecondsEach(TomlModel):
    """Seconds for one multiply-accumulate, element, random byte, call and tuple of `Work`, and for one message."""

    macs: float = Field(ge=0)
    elements: float = Field(ge=0)
    random: float = Field(ge=0)
    calls: float = Field(ge=0)
    tuples: float = Field(default=0, ge=0)
    rounds: float = Field(ge=0)


class MachineRecord(Record):
    """A machine's profile, as `pi-sim calibrate` measures it."""

    kind: Literal["machine"] = "machine"
    name: str
    source: str
    seconds_each: SecondsEach
