"""Published figures: what papers and measurements say that something costs, for our prices to be held against."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pi_sim.specs.protocols import BYTES_PER_UNIT, CountedParties
from pi_sim.specs.toml import TomlModel

PublishedValue = Annotated[float, Field(gt=0)]
Unit = Literal["B", "kB", "MB", "GB", "KiB", "MiB", "GiB", "bits"]


class Operation(TomlModel):
    """An operation at given shapes, all of its operands secret."""

    op: str
    shapes: tuple[tuple[PositiveInt, ...], ...] = Field(min_length=1)
    attributes: dict[str, bool | int | float | str] = Field(default_factory=dict)
    times: int = 1
    """How often it is run; negative for what a difference subtracts."""


class Inference(TomlModel):
    """A model at a length, or a part of it."""

    model: str
    size: str = "gpt2"
    """Of a model card; a model with a config of its own has its own."""
    seq_len: PositiveInt
    part: Literal["whole", "inner", "blocks"] = "whole"
    """Inner: without embedding and vocabulary head; blocks: the numbered layers alone."""
    only: tuple[str, ...] = ()
    """Operations; all of them where none is named."""


class Tolerance(TomlModel):
    """How far ours may be from a published figure, relative to that."""

    rounds: float = Field(default=0.0, ge=0)
    bytes: float = Field(default=0.01, ge=0)
    offline: float = Field(default=0.01, ge=0)
    seconds: float = Field(default=0.1, ge=0)


class Claim(TomlModel):
    """What is said to cost how much: one row of a published table."""

    name: str = Field(min_length=1)
    source: str = Field(min_length=1)
    """The table or section of the publication."""
    protocol: str
    model: Inference | None = None
    ops: tuple[Operation, ...] = ()
    """Instead of a model, or besides it: what the publication runs and our graph does not."""
    rounds: PositiveInt | None = None
    bytes: PublishedValue | None = None
    offline: PublishedValue | None = None
    seconds: PublishedValue | None = None
    """Of one inference, computing included."""
    network: str | None = None
    counted: CountedParties
    """Whose sent bytes the figure is."""
    offline_counted: CountedParties | None = None
    """The same for offline bytes, where they differ."""
    unit: Unit = "B"
    role: Literal["fit", "check"] = "check"
    """Fit: the prices were made from this figure; check: they never saw it."""
    tolerance: Tolerance = Tolerance()
    reason: str = ""
    """Why ours may be another, where it is."""

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
        """Bytes of one unit."""
        return BYTES_PER_UNIT[self.unit]


class Publication(TomlModel):
    """`protocols/published/<name>.toml`: a paper's or a measurement's figures, and where they stand."""

    title: str
    url: str
    note: str = ""
    """What the figures count and how they were obtained."""
    every: dict[str, Any] = Field(default_factory=dict)
    """Keys that rows share unless they have their own."""
    row: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _apply_shared_keys(cls, table: Any) -> Any:
        """Rows as they are, each with what all share."""
        rows, every = table.get("row"), table.get("every", {})
        if not isinstance(rows, list) or not isinstance(every, dict):
            return table
        return {**table, "row": [{**every, **row} if isinstance(row, dict) else row for row in rows]}

    @model_validator(mode="after")
    def _check_distinct_names(self) -> Self:
        names = [row.name for row in self.row]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two rows are called {twice!r}")
        return self
