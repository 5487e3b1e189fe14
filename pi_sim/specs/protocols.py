"""Schemas of protocols: executable (kernels, prices derived from them) and declared (prices from publications)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

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
BYTES_PER_UNIT: dict[Unit, float] = dict(
    B=1.0, kB=1e3, MB=1e6, GB=1e9, KiB=2.0**10, MiB=2.0**20, GiB=2.0**30, bits=0.125
)


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


def merge_protocol_tables(table: dict[str, Any], base: ExecutableProtocol) -> dict[str, Any]:
    """Return the flat table of a protocol that extends `base`: its own kernels and settings replace those of `base`."""
    inherited: dict[str, dict[str, Any]] = {"kernels": base.kernels, "settings": base.settings}
    own = {key: table.get(key, {}) for key in inherited}
    return table | {key: inherited[key] | own[key] if isinstance(own[key], dict) else own[key] for key in inherited}


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
    unit: Unit = "B"
    """Unit of bytes and offline."""
    at: dict[Feature, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Values of features in the source's measurement: a coefficient is divided by its feature's value."""

    @model_validator(mode="after")
    def _check_divisors_used(self) -> Self:
        """Refuse a value that divides no coefficient: the coefficient is missing or misnamed."""
        unused = sorted(set(self.at) - {*self.rounds, *self.bytes, *self.offline})
        if unused:
            raise ValueError(f"at names {unused[0]}, to which no term is proportional")
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

    @property
    def has_offline_figures(self) -> bool:
        """True if zero offline bytes are a fact; otherwise the sources do not state offline bytes."""
        return self.no_offline or any(price.offline for price in self.price.values())
