"""What a bench finds: the schema of its record, which whoever renders it reads without torch."""

from pydantic import Field

from pi_sim.specs import Spec

KIND = "bench"
Count = int
"""A whole number of rounds or bytes."""


class Extent(Spec):
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


QUICK = Extent(
    tokens=8, width=16, heads=2, vocabulary=32, large_vocabulary=64,
    repetitions=1, sequences=1, truncations=10**6, models=("relu_nonorm",),
)  # fmt: skip
"""The same code within seconds: its counts are those of small shapes, its seconds mean little."""


class Measured(Spec):
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
    rounds: Count
    bytes: Count
    offline_bytes: Count
    session_bytes: Count
    seconds: float | None = None
    online_seconds: float | None = None
    error: float | None = None


class Ran(Spec):
    """A whole model under one protocol, with one dealer: counts, and seconds of the quickest sequence."""

    model: str
    protocol: str
    dealer: str
    rounds: Count
    bytes: Count
    offline_bytes: Count
    session_bytes: Count
    seconds: float
    communication_seconds: float
    difference: float
    """The largest one between private and plain logits."""


class Truncated(Spec):
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


class Bench(Spec):
    """All of it. `load` is the machine's mean load before and afterwards, measured by others' work too."""

    extent: Extent
    threads: int
    load: tuple[float, float]
    operations: tuple[Measured, ...]
    models: tuple[Ran, ...]
    truncations: tuple[Truncated, ...]
