"""Schemas of published figures: costs from papers and measurements, with which pi-sim's prices are compared."""

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pi_sim.specs.protocols import BYTES_PER_UNIT, CountedParties, Unit
from pi_sim.specs.toml import TomlModel

PublishedValue = Annotated[float, Field(gt=0)]


class Operation(TomlModel):
    """Operation at given shapes, with secret operands only."""

    op: str
    shapes: tuple[tuple[PositiveInt, ...], ...] = Field(min_length=1)
    attributes: dict[str, bool | int | float | str] = Field(default_factory=dict)
    times: int = 1
    """Number of runs; negative for the subtrahend of a difference."""


class Inference(TomlModel):
    """Inference of a model, or of a part of it, at one sequence length."""

    model: str
    size: str = "gpt2"
    """Size of a model card; a model with a config has no other size."""
    seq_len: PositiveInt
    part: Literal["whole", "inner", "blocks"] = "whole"
    """Inner: without embedding and vocabulary head; blocks: only the numbered layers."""
    only: tuple[str, ...] = ()
    """Operations to count; all if empty."""


class Tolerance(TomlModel):
    """Largest allowed relative deviation of pi-sim's price from a published figure."""

    rounds: float = Field(default=0.0, ge=0)
    bytes: float = Field(default=0.01, ge=0)
    offline: float = Field(default=0.01, ge=0)
    seconds: float = Field(default=0.1, ge=0)


class Claim(TomlModel):
    """Published cost of operations or a model: one row of a table."""

    name: str = Field(min_length=1)
    source: str = Field(min_length=1)
    """Table or section of the publication."""
    protocol: str
    model: Inference | None = None
    ops: tuple[Operation, ...] = ()
    """Operations instead of a model, or those that the publication runs beyond the captured graph."""
    rounds: PositiveInt | None = None
    bytes: PublishedValue | None = None
    offline: PublishedValue | None = None
    seconds: PublishedValue | None = None
    """Seconds of one inference, computing included."""
    network: str | None = None
    counted: CountedParties
    """Parties whose sent bytes the figure counts."""
    offline_counted: CountedParties | None = None
    """`counted` of offline bytes, if it differs."""
    unit: Unit = "B"
    role: Literal["fit", "check"] = "check"
    """Fit: prices were fitted to this figure; check: they were not."""
    tolerance: Tolerance = Tolerance()
    reason: str = ""
    """Reason for a deviation beyond the tolerance."""

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if not self.ops and self.model is None:
            raise ValueError("a row needs ops or a model")
        if self.rounds is self.bytes is self.offline is self.seconds is None:
            raise ValueError("a row needs rounds, bytes, offline or seconds")
        if (self.seconds is None) != (self.network is None):
            raise ValueError("seconds need a network, and a network is for seconds")
        return self

    @property
    def bytes_per_unit(self) -> float:
        """Bytes in one unit."""
        return BYTES_PER_UNIT[self.unit]


class Publication(TomlModel):
    """Publication, `protocols/published/<name>.toml`: the figures of a paper or a measurement, and their source."""

    title: str
    url: str
    note: str = ""
    """Contents of the figures, and how they were obtained."""
    every: dict[str, Any] = Field(default_factory=dict)
    """Keys of all rows, unless a row overrides them."""
    row: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _apply_shared_keys(cls, table: Any) -> Any:
        """Add the keys of `every` to the rows."""
        rows, every = table.get("row"), table.get("every", {})
        if not isinstance(rows, list) or not isinstance(every, dict):
            return table
        return {**table, "row": [{**every, **row} if isinstance(row, dict) else row for row in rows]}

    @model_validator(mode="after")
    def _check_distinct_names(self) -> Self:
        name, count = Counter(row.name for row in self.row).most_common(1)[0]
        if count > 1:
            raise ValueError(f"two rows are called {name!r}")
        return self
