"""Schemas of records of costs: estimates, private runs, benchmarks and machine profiles.

Optional fields are null if the value was not available.
"""

from typing import Literal

from pydantic import Field

from pi_sim.records.envelope import Record
from pi_sim.specs import TomlModel

RARE = 0.05
"""Share of corrupted positions up to which they count as rare events; a larger share means a wrong kernel."""
WRONG = 1.1
"""Ratio of private to plain perplexity above which the result is wrong."""


class Price(TomlModel):
    """Rounds and bytes. `offline_bytes` is null where the protocol's sources do not state it."""

    rounds: int
    bytes: int
    offline_bytes: int | None


class Total(Price):
    """Sum of prices, with seconds by network."""

    seconds: dict[str, float]
    compute_seconds: float | None = None


class EstimateRow(TomlModel):
    """Price of one operation of one shape in one module, over all its occurrences."""

    module: str
    op: str
    shapes: str
    count: int
    provenance: str | None = None
    rounds: int
    bytes: int
    offline_bytes: int | None


class Estimated(Record):
    """Fields of an estimate, which records of runs share."""

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
    """Seconds of the connection for a round, and for a megabyte in each direction."""

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
    """Plain and private perplexity on the same tokens; null if one overflows or there is no plain model."""

    plain: float | None = None
    private: float | None = None


class Perplexity(PerplexityPair):
    """Perplexities over all positions and, if some are corrupted, over the others."""

    excluding_corrupted: PerplexityPair | None = None


class Agreement(TomlModel):
    """Deviation of private from plain logits."""

    max_abs: float
    mean_abs: float
    top1: float
    corrupted_positions: int = 0
    """Positions with a logit error that approximation does not explain: a truncation failed."""


class RunRecord(Estimated):
    """Private run of two parties on one machine."""

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
        """Relative change of perplexity from plain to private over all positions; None if one overflows."""
        plain, private = self.perplexity.plain, self.perplexity.private
        return private / plain - 1 if private and plain else None

    @property
    def compared(self) -> PerplexityPair:
        """Plain and private perplexity, without corrupted positions if these are rare."""
        corrupted = self.agreement.corrupted_positions if self.agreement else 0
        is_rare = 0 < corrupted < RARE * self.sequences * self.seq_len
        return (
            self.perplexity.excluding_corrupted if is_rare and self.perplexity.excluding_corrupted else self.perplexity
        )

    @property
    def is_wrong(self) -> bool:
        """True if the private result is wrong at more than rare positions."""
        plain, private = self.compared.plain, self.compared.private
        return plain is not None and (private is None or private > WRONG * plain)


class PayloadBytes(TomlModel):
    """Payload of the run in bytes, as one party's link counted it."""

    sent: int
    received: int


class PartyRecord(Estimated):
    """One party of a run across two machines; only the client has the logits."""

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
    """Size of the benchmark, by default that of a GPT-2 block."""

    tokens: int = Field(default=128, gt=1)
    width: int = Field(default=768, gt=0)
    heads: int = Field(default=12, gt=0)
    vocabulary: int = Field(default=2048, gt=0)
    large_vocabulary: int = Field(default=50257, gt=0)
    """Vocabulary whose embedding is priced and not run."""
    repetitions: int = Field(default=5, gt=0)
    """Repetitions of an operation, of which the fastest counts."""
    sequences: int = Field(default=3, gt=0)
    """Sequences of a model, of which the fastest counts."""
    truncations: int = Field(default=10**8, gt=0)
    bounds: tuple[int, ...] = (8, 64)
    """Bounds of the factors of truncated products (powers of two): typical activations, and visible failures."""
    models: tuple[str, ...] = ("relu_nonorm", "gelu_ln")
    """Shipped models of size tiny that are run in addition to the block."""


class KernelTiming(TomlModel):
    """One operation by one kernel: the bytes that one party sends, and seconds of two processes on one machine.

    Party 0 is the dealer in `seconds`; all randomness is in memory beforehand in `online_seconds`. Both are null if the
    operation was priced only. `error` is the max error against the plain value.
    """

    name: str
    shapes: str
    kernel: str
    protocols: tuple[str, ...]
    """Protocols that use this kernel at this price; the first was measured."""
    elements: int
    """Elements of the result; of a causal softmax, those that the kernel computes."""
    rounds: int
    bytes: int
    offline_bytes: int
    session_bytes: int
    seconds: float | None = None
    online_seconds: float | None = None
    error: float | None = None


class ModelTiming(TomlModel):
    """A model under one protocol with one dealer: counts, and seconds of the fastest sequence."""

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
    """Max error of private against plain logits."""


class TruncationTest(TomlModel):
    """Products truncated by one protocol's kernel, of factors up to `bound` in size."""

    protocol: str
    kernel: str
    bound: int
    number: int = 0
    wrong: int = 0
    """Products that are off by more than two units in the last place."""
    units: int = 0
    """Max error of the other products in units in the last place, against the product rounded down."""
    expected_locally: float = 0.0
    """Expected number of wrong products under local truncation by each party: the sum of |x| / 2^64."""


class BenchRecord(Record):
    """All results of a benchmark. `load` is the machine's mean load before and after, with that of other processes."""

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
