"""Schemas of records of costs: estimates, private runs, benchmarks and machine profiles; null if not available."""

from typing import Literal

from pydantic import Field

from pi_sim.records.envelope import Record
from pi_sim.specs import TomlModel

RARE = 0.05
"""Share of corrupted positions up to which they count as rare events; a larger share means a wrong kernel."""
WRONG = 1.1
"""Ratio of private to plain perplexity above which the result is wrong."""
LEAST_TOP1, LARGEST_DRIFT, LEAST_COSINE = 0.95, 0.05, 0.99
"""Agreement of top-1, change of perplexity, and cosine to plain vectors, of a private result that can be trusted."""
NEAR_TIE = 0.1
"""Error of logits within which another token of a few generated ones is a near tie."""


BytesByParty = tuple[int, int]
"""Bytes of the server and of the client."""


class Price(TomlModel):
    rounds: int
    bytes: int  # of the busier party
    bytes_by_party: BytesByParty | None = None
    ahead_bytes: int | None = None  # that the busier party can send before the input is there
    offline_bytes: int | None  # null where the protocol's sources do not state it


class Total(Price):
    session_bytes: int | None = None  # that the busier party sends once per session
    seconds: dict[str, float]  # by network
    compute_seconds: float | None = None
    ahead_compute_seconds: float | None = None
    first_query_seconds: dict[str, float] = Field(default_factory=dict)  # by network


class EstimateRow(TomlModel):
    module: str
    op: str
    shapes: str
    count: int  # occurrences in the module, which the price includes
    provenance: str | None = None
    rounds: int
    bytes: int
    bytes_by_party: BytesByParty | None = None
    ahead_bytes: int | None = None
    session_bytes: int | None = None
    offline_bytes: int | None


class Estimated(Record):
    """Fields of an estimate, which records of runs share."""

    model: str
    size: str
    protocol: str
    seq_len: int
    batch: int = 1
    past: int | None = None
    generate: int | None = None
    only_inner: bool = False
    total: Total
    without_embedding_and_head: Total
    session_bytes: int | None = None
    rows: tuple[EstimateRow, ...]
    conventions: tuple[str, ...]


class EstimateRecord(Estimated):
    kind: Literal["estimate"] = "estimate"


class LinkCosts(TomlModel):
    round_seconds: float
    megabyte_seconds: float  # in each direction


class Measured(Price):
    """Counters of one sequence, and one party's mean seconds for it on the critical path."""

    seconds: float
    communication_seconds: float
    late_seconds: float | None = None  # how late messages of an imitated network arrived, in all
    compute_seconds: float
    peer_wait_seconds: float | None = None  # the part of `compute_seconds` spent waiting for the peer's computation
    setup_seconds: float
    session_bytes: int | None = None
    ahead_seconds: float | None = None  # of preparing a sequence before the input is there, at the busier party
    memory_bytes: int | None = None  # peak of the larger party
    link: LinkCosts | None = None
    predicted_communication_seconds: float | None = None
    communication_ratio: float | None = None
    predicted_compute_seconds: float | None = None  # by this machine's profile; null without one
    compute_ratio: float | None = None  # of measured to predicted seconds


class PerplexityPair(TomlModel):
    """Plain and private perplexity on the same tokens; null if one overflows or there is no plain model."""

    plain: float | None = None
    private: float | None = None


class Perplexity(PerplexityPair):
    excluding_corrupted: PerplexityPair | None = None  # if some positions are corrupted, over the others


class Agreement(TomlModel):
    """Deviation of private from plain logits, null if either holds NaN or infinities."""

    max_abs: float | None
    mean_abs: float | None
    top1: float | None  # null for vectors
    corrupted_positions: int = 0  # their logit error is beyond approximation: a truncation failed


class Answer(TomlModel):
    """A class of the logits, such as a token or a label, and its probabilities."""

    input: str | None = None  # of which this is the most probable class; null for several answers to one input
    text: str
    private: float
    plain: float | None = None


class VectorResult(TomlModel):
    """Vector that an encoder gives for an input: its norm, and its cosine to the plain one."""

    input: str
    norm: float
    plain_norm: float | None = None
    cosine: float | None = None


class Decoded(Price):
    """Counters and mean seconds of one graph of a generation: that of the prompt, or of a step behind it."""

    token: int  # that the client chose by its logits
    past: int  # tokens before those that it reads
    seconds: float
    communication_seconds: float
    ahead_seconds: float


class Generation(TomlModel):
    """Continuation of a prompt, token by token."""

    prompt: str
    prompt_tokens: int
    text: str
    plain_text: str | None = None  # continuation of the plain model by the same choice
    agreement: int | None = None  # first tokens that both have in common
    temperature: float
    top_p: float
    seed: int
    prefill: Decoded
    steps: tuple[Decoded, ...]
    tokens_per_second: float | None  # of the steps; null without any


class RunRecord(Estimated):
    """Private run of two parties on one machine."""

    kind: Literal["run"] = "run"
    sequences: int  # evaluations of the graph
    network: str
    dealer: str = "first-party"
    device: str = "cpu"
    measured: Measured
    perplexity: Perplexity | None = None  # null for a prompt, and for models that predict no next token
    answers: tuple[Answer, ...] = ()  # to a prompt: the most probable next tokens, or labels; to lines: their label
    vectors: tuple[VectorResult, ...] = ()
    generation: Generation | None = None
    agreement: Agreement | None = None

    @property
    def drift(self) -> float | None:
        """Relative change of perplexity from plain to private over all positions; None if one overflows."""
        if self.perplexity is None:
            return None
        plain, private = self.perplexity.plain, self.perplexity.private
        return private / plain - 1 if private and plain else None

    @property
    def compared(self) -> PerplexityPair:
        """Plain and private perplexity, without corrupted positions if these are rare."""
        if self.perplexity is None:
            return PerplexityPair()
        corrupted = self.agreement.corrupted_positions if self.agreement else 0
        is_rare = 0 < corrupted < RARE * self.sequences * self.seq_len
        return (is_rare and self.perplexity.excluding_corrupted) or self.perplexity

    @property
    def faults(self) -> list[str]:
        """Reasons why the private result cannot be trusted, none without plain logits to compare with."""
        agreement, drift = self.agreement, self.drift
        if agreement is None:
            return []
        reasons = []
        if agreement.corrupted_positions:
            reasons.append(f"logits at {agreement.corrupted_positions:,} positions are corrupted")
        is_near_tie = self.generation is not None and (agreement.max_abs or 0) < NEAR_TIE
        if agreement.top1 is not None and agreement.top1 < LEAST_TOP1 and not is_near_tie:
            reasons.append(f"top-1 agrees at {agreement.top1:.1%} of positions")
        if self.perplexity and self.perplexity.plain and (drift is None or abs(drift) > LARGEST_DRIFT):
            reasons.append("perplexity overflows" if drift is None else f"perplexity is off by {drift:+.1%}")
        cosines = [vector.cosine for vector in self.vectors if vector.cosine is not None]
        if min(cosines, default=1.0) < LEAST_COSINE:
            reasons.append(f"the cosine to a plain vector is {min(cosines):.4f}")
        return reasons

    @property
    def is_wrong(self) -> bool:
        """True if the private result is wrong at more than rare positions."""
        plain, private = self.compared.plain, self.compared.private
        return plain is not None and (private is None or private > WRONG * plain)


class PayloadBytes(TomlModel):
    sent: int  # as one party's link counted it
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
    answers: tuple[Answer, ...] = ()
    vectors: tuple[VectorResult, ...] = ()
    generation: Generation | None = None  # at the client
    agreement: Agreement | None = None


class BenchSize(TomlModel):
    """Size of the benchmark, by default that of a GPT-2 block."""

    tokens: int = Field(default=128, gt=1)
    width: int = Field(default=768, gt=0)
    heads: int = Field(default=12, gt=0)
    vocabulary: int = Field(default=2048, gt=0)
    large_vocabulary: int = Field(default=50257, gt=0)  # its embedding is priced and not run
    repetitions: int = Field(default=5, gt=0)  # of an operation; the fastest counts
    sequences: int = Field(default=3, gt=0)  # of a model; the fastest counts
    truncations: int = Field(default=10**8, gt=0)
    bounds: tuple[int, ...] = (8, 64)
    """Bounds of the factors of truncated products (powers of two): typical activations, and visible failures."""
    models: tuple[str, ...] = ("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm")
    """Shipped models of size tiny, run in addition to the block."""
    whole: bool = True  # whether the whole GPT-2 small is run under lean, with random weights


class KernelTiming(TomlModel):
    """One operation by one kernel: the bytes that one party sends, and seconds of two processes on one machine."""

    name: str
    shapes: str
    kernel: str
    protocols: tuple[str, ...]  # those that use this kernel at this price; the first was measured
    elements: int  # of the result; of a causal softmax, those that the kernel computes
    rounds: int
    bytes: int
    bytes_by_party: BytesByParty | None = None
    ahead_bytes: int | None = None
    offline_bytes: int
    session_bytes: int
    seconds: float | None = None  # with party 0 as the dealer; null if the operation was priced only
    online_seconds: float | None = None  # with all randomness in memory beforehand; likewise
    error: float | None = None  # max error against the plain value


class ModelTiming(TomlModel):
    """A model under one protocol with one dealer: counts, and seconds of the fastest sequence."""

    model: str
    protocol: str
    dealer: str
    rounds: int
    bytes: int
    bytes_by_party: BytesByParty | None = None
    ahead_bytes: int | None = None
    ahead_seconds: float | None = None  # of preparing a sequence before the input is there, at the busier party
    offline_bytes: int
    session_bytes: int
    seconds: float
    communication_seconds: float
    difference: float  # max error of private against plain logits
    memory_bytes: int | None = None  # peak of the larger party


class LatencyRow(ModelTiming):
    """A model under one protocol on one device: counts, seconds of the fastest sequence, and quality."""

    device: str
    seq_len: int
    sequences: int
    perplexity: Perplexity | None = None  # null for random weights
    agreement: Agreement | None = None


class SkippedRun(TomlModel):
    """A run that did not fit the budget, or that failed."""

    device: str
    model: str
    protocol: str
    seq_len: int
    reason: str
    failed: bool = False


class LatencyRecord(Record):
    kind: Literal["latency"] = "latency"
    device: str
    gpu: str | None  # null where torch sees none
    budget_seconds: float
    quick: bool
    threads: int  # of each party on the CPU
    rows: tuple[LatencyRow, ...]
    skipped: tuple[SkippedRun, ...]


class TruncationTest(TomlModel):
    """Products truncated by one protocol's kernel, of factors up to `bound` in size."""

    protocol: str
    kernel: str
    bound: int
    number: int = 0
    wrong: int = 0  # off by more than two units in the last place
    units: int = 0  # max error of the other products in units in the last place, against the product rounded down
    expected_locally: float = 0.0  # wrong products under local truncation by each party: the sum of |x| / 2^64


class BenchRecord(Record):
    kind: Literal["bench"] = "bench"
    extent: BenchSize
    threads: int
    load: tuple[float, float]  # the machine's mean load before and after, with that of other processes
    vector_instructions: Literal["AVX-512", "AVX2"] = "AVX-512"  # widest that torch uses on the CPU
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
    kind: Literal["machine"] = "machine"
    name: str
    source: str
    seconds_each: SecondsEach
