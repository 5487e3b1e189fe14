"""Schemas of protocols, executable (kernels, prices derived from them) and declared (prices from publications).

Published figures, costs from papers and measurements, are compared with the prices.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, PrivateAttr, model_validator

from pi_sim.specs.toml import TomlModel

FEATURES = {
    "each": "1 for every operation of any size",
    "elements": "elements of the result",
    "rows": "rows of the result: its elements / its last dimension",
    "cols": "the result's last dimension",
    "log2_cols": "base-2 logarithm of the last dimension, rounded up",
    "visible": "elements of the result that a causal mask leaves; all of them without a mask",
    "operands": "elements of all secret operands, before broadcasting",
    "batch": "matrix products in a batched product",
    "mk": "elements of the first factor of a product",
    "kn": "elements of the second factor",
    "mn": "elements of the product",
    "mkn": "multiplications in the product",
}
"""Features that a price may be proportional to: public numbers that follow from an operation's shapes."""

Unit = Literal["B", "kB", "MB", "GB", "KiB", "MiB", "GiB", "bits"]
BYTES_PER_UNIT = dict(zip(get_args(Unit), (1.0, 1e3, 1e6, 1e9, 2.0**10, 2.0**20, 2.0**30, 0.125), strict=True))


def _check_feature(name: str) -> str:
    if name not in FEATURES:
        raise ValueError(f"there is no feature {name!r}; known: {', '.join(FEATURES)}")
    return name


Feature = Annotated[str, BeforeValidator(_check_feature)]
Terms = dict[Feature, float]
"""Sum of coefficients times features."""


class ProtocolHeader(TomlModel):
    """Keys that every protocol has."""

    name: str
    title: str
    threat_model: str
    source: str
    parties: int = Field(default=2, ge=2)
    ring: str = "64 bits, 16 of them for the fraction"
    _origin: str = PrivateAttr("")

    @property
    def origin(self) -> str:
        """Path of the protocol's file, for error messages; empty for a protocol made in Python."""
        return self._origin

    def with_origin(self, path: Path) -> Self:
        """Set the path of the protocol's file, and return the protocol."""
        self._origin = str(path)
        return self


class ExecutableProtocol(ProtocolHeader):
    """Protocol that runs here: a kernel for each operation, and settings, including those of a protocol it extends."""

    parties: Literal[2] = 2
    provenance: Literal["derived"] = "derived"
    kernels: dict[str, str]
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    weights: Literal["shared", "server"] = "shared"
    """Shared: a model's owner shared them between both parties; server: the server has them in the clear."""
    rewrites: tuple[str, ...] = ()
    """Passes that rewrite a graph before it runs, in order, see `pi_sim.mpc.rewriting`."""

    @property
    def rewriting_digest(self) -> str:
        """Digest of all that a rewritten graph depends on besides the graph; empty if graphs stay as they are."""
        if not self.rewrites:
            return ""
        return hashlib.sha256(json.dumps([self.rewrites, self.kernels], sort_keys=True).encode()).hexdigest()


def merge_protocol_tables(table: dict[str, Any], base: ExecutableProtocol) -> dict[str, Any]:
    """Return the flat table of a protocol that extends `base`: its own kernels and settings replace those of `base`.

    The threat model, the source, the owner of weights and the rewrites are those of `base` unless it states them.
    """
    inherited: dict[str, dict[str, Any]] = {"kernels": base.kernels, "settings": base.settings}
    own = {key: table.get(key, {}) for key in inherited}
    header = {key: getattr(base, key) for key in ("threat_model", "source", "weights", "rewrites")}
    tables = {key: inherited[key] | own[key] if isinstance(own[key], dict) else own[key] for key in inherited}
    return header | table | tables


class Price(TomlModel):
    """Price of an operation as its source prints it, in terms of features."""

    source: str = Field(min_length=1)
    provenance: Literal["declared", "scaled", "fitted"] = "declared"
    """Declared: a formula of the source, for any size; scaled: one size of the source, proportional to a feature;
    fitted: coefficients that reproduce several figures of the source, none of which states them."""
    note: str = ""
    """Contents of the figure, and how it was scaled or fitted."""
    rounds: Terms
    bytes: Terms
    offline: Terms = Field(default_factory=dict)
    seconds: Terms = Field(default_factory=dict)
    """Seconds of computing on the protocol's `hardware`."""
    seconds_source: str = ""
    """Table or figure that states them, and how they were taken from it."""
    unit: Unit = "B"
    """Unit of bytes and offline."""
    at: dict[Feature, PositiveFloat] = Field(default_factory=dict)
    """Values of features in the source's measurement: a coefficient is divided by its feature's value."""

    @model_validator(mode="after")
    def _check_divisors_used(self) -> Self:
        """Refuse a value that divides no coefficient: the coefficient is missing or misnamed."""
        unused = sorted(set(self.at) - {*self.rounds, *self.bytes, *self.offline, *self.seconds})
        if unused:
            raise ValueError(f"at names {unused[0]}, to which no term is proportional")
        if self.seconds and not self.seconds_source:
            raise ValueError("seconds need a seconds_source")
        return self


CountedParties = Literal["one party", "both parties", "all parties"]


class DeclaredProtocol(ProtocolHeader):
    """Protocol that cannot be run here, with its source's prices."""

    provenance: Literal["declared"]
    counted: CountedParties
    """Parties whose sent bytes the source's figures count; estimates count those of one party."""
    offline_counted: CountedParties | None = None
    """`counted` of offline bytes, if it differs: a dealer with seeds sends its corrections to one party alone."""
    no_offline: bool = False
    """True if there is no offline phase."""
    local: tuple[str, ...] = ()
    """Operations that need no communication."""
    price: dict[str, Price]
    """Prices by operation, or by one of its variants such as gelu-tanh, which take precedence."""
    notes: str = ""
    hardware: str = ""
    """Machines of the sources' seconds of computing."""

    @model_validator(mode="after")
    def _check_hardware(self) -> Self:
        """Refuse seconds of unknown machines."""
        if not self.hardware and any(price.seconds for price in self.price.values()):
            raise ValueError("a price has seconds; name the machines in the key hardware")
        return self

    @property
    def has_offline_figures(self) -> bool:
        """True if zero offline bytes are a fact; otherwise the sources do not state offline bytes."""
        return self.no_offline or any(price.offline for price in self.price.values())


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
    bytes: PositiveFloat | None = None
    offline: PositiveFloat | None = None
    seconds: PositiveFloat | None = None
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
