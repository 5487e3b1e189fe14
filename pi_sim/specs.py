"""The TOML facts: found in a wheel or in a checkout, read, and checked against their schema.

`models/*.toml` are model cards, `models/sizes/*.toml` sizes, `protocols/*.toml` protocols. Each is data that can be
reviewed without reading Python; a mistake in one is a `UsageError` that names the file and the key.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pi_sim.errors import UsageError

Kind = Literal["models", "models/sizes", "protocols"]


class Spec(BaseModel):
    """A checked, read-only TOML table: unknown keys are errors, so a typing mistake cannot pass unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Norm = Literal["layernorm", "rmsnorm", "none", "dyt", "dyt-hardtanh", "derf"]
Activation = Literal["gelu", "gelu_tanh", "relu", "leaky_relu", "learnable_lrelu", "silu", "quad", "identity"]

Layers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value),
]
"""Numbers of layers, as a list or, on a command line, as 0,2."""

NEEDS = {
    "alpha_attention": ("norm", ("dyt", "dyt-hardtanh", "derf")),
    "slope": ("activation", ("leaky_relu", "learnable_lrelu")),
    "slopes": ("activation", ("learnable_lrelu",)),
    "temperature": ("attention", (None, "softmax")),
}
"""Switches that mean something with certain values of another one alone; 2relu and 2quad have no temperature, since
the one would not change by it and the other has its constant."""


class Surgery(Spec):
    """The switches of a design, as `pi_sim.zoo.surgery` carries them out; what is None stays as the model has it."""

    norm: Norm | None = None
    final_norm: Norm | None = None
    activation: Activation | None = None
    attention: Literal["softmax", "2relu", "2quad"] | None = None
    temperature: bool = False
    """Whether every head learns a temperature of its softmax."""
    relu_after_norm: bool = False
    """A ReLU after each norm of the blocks: the second stage of relufication."""
    ffn: Literal["mlp", "scaled", "fused"] = "mlp"
    """Scaled: learned factors of the FFN and its residual; fused: scaled, and its two matrices are one."""
    dropped_ffn: Layers = ()
    """Layers without an FFN."""
    alpha_attention: float = Field(default=1.0, gt=0)
    """DyT's and Derf's alpha before attention, as it starts."""
    alpha_other: float = Field(default=1.0, gt=0)
    """The same elsewhere."""
    slope: float = Field(default=0.01, ge=0)
    """Of the leaky ReLU for negative inputs; of the learnable one, as it starts."""
    slopes: Literal["layer", "global"] = "layer"
    """Whether every layer learns a slope, or all learn one together."""

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        """Refuse a switch that would do nothing: it would be taken for one that does."""
        chosen = self.model_dump(exclude_defaults=True)
        for switch, (other, values) in NEEDS.items():
            if switch in chosen and getattr(self, other) not in values:
                names = " or ".join(value for value in values if value)
                raise ValueError(f"{switch} = {chosen[switch]} does nothing unless {other} is {names}")
        return self

    def plan(self) -> dict[str, Any]:
        """The switches that were set, as JSON holds them."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Architecture(Surgery):
    """What distinguishes one design from another at equal size: a family of models, and every switch."""

    family: Literal["gpt2", "gpt_neox", "opt", "llama"] = "gpt2"
    norm: Norm
    final_norm: Norm
    activation: Activation
    attention: Literal["softmax", "2relu", "2quad"] = "softmax"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Refuse what no model can be."""
        if self.ffn != "mlp" and self.norm != "none":
            raise ValueError(f"ffn = {self.ffn} scales the residual, which is the FFN's input only with norm = none")
        if self.ffn == "fused" and self.activation != "identity":
            raise ValueError("ffn = fused makes one matrix of two, which only activation = identity allows")
        if self.relu_after_norm and self.norm == "none":
            raise ValueError("relu_after_norm needs a norm before the ReLU, not norm = none")
        return self


class ModelCard(Spec):
    """`models/<name>.toml`: a design, and what its recipe changes against the size's."""

    name: str
    title: str
    source: str
    architecture: Architecture
    training: dict[str, dict[str, Any]] = Field(default_factory=dict)


Scale = Annotated[
    Annotated[float, Field(gt=0)] | None, BeforeValidator(lambda value: None if value == "none" else value)
]
"""A learned factor as it starts; "none", which TOML and a command line can say, switches it off."""


class Recipe(Spec):
    """How a size is trained: one recipe for all designs that are compared at that size."""

    tokens: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "polynomial"] = "linear"
    warmup_ratio: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    init_std: float = Field(gt=0)
    embedding_scale: Scale = None
    logit_scale: Scale = None
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)
    bf16: bool
    fp16: bool = False
    entropy_penalty: float = Field(default=0.0, ge=0)
    """Lambda of AERO's entropy regularization; 0 is without."""
    entropy_margin: float = Field(default=0.2, ge=0, le=1)
    """Gamma there: the deviation from a head's threshold that is free, as a share of the maximum entropy."""


class Size(Spec):
    """`models/sizes/<name>.toml`: the dimensions of a model and the recipe that works for them."""

    name: str
    title: str
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    width: int = Field(gt=0)
    context: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    training: Recipe

    @field_validator("width")
    @classmethod
    def _whole_heads(cls, width: int, info: ValidationInfo) -> int:
        heads = info.data.get("heads", 1)
        if width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} heads")
        return width


class ProtocolCard(Spec):
    """`protocols/<name>.toml`: an executable protocol is a choice of kernels and their settings."""

    name: str
    title: str
    threat_model: str
    source: str
    parties: Literal[2] = 2
    provenance: Literal["derived"] = "derived"
    kernels: dict[str, str]
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)


ALTERNATIVES: dict[Kind, tuple[str, str]] = {
    "models": ("model", "a card's .toml file, or, except to train, a checkpoint folder with a config.json"),
    "models/sizes": ("size", "a .toml file"),
    "protocols": ("protocol", "a .toml file"),
}
"""What a kind's facts are called, and what may be named instead of one that is known."""

SpecT = TypeVar("SpecT", bound=Spec)


@cache
def facts() -> Path:
    """The folder that holds `models` and `protocols`: inside an installed package, or the checkout's root."""
    package = Path(__file__).parent
    return package / "facts" if (package / "facts").is_dir() else package.parent


def names(kind: Kind) -> list[str]:
    """The names that `find` accepts, in alphabetical order."""
    return sorted(path.stem for path in (facts() / kind).glob("*.toml"))


def find(kind: Kind, name: str) -> Path:
    """The TOML file called `name`, or the file that `name` is the path of."""
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UsageError(f"there is no file {name}.")
        return Path(name)
    if name not in names(kind):
        noun, alternative = ALTERNATIVES[kind]
        raise UsageError(f"unknown {noun} {name!r}; known: {', '.join(names(kind))}, or {alternative}.")
    return facts() / kind / f"{name}.toml"


def read(schema: type[SpecT], path: Path) -> SpecT:
    """The file's table as a `schema`; a `UsageError` names the file and the line or key that is wrong."""
    try:
        return check(schema, tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file in UTF-8.") from None


def check(schema: type[SpecT], table: dict[str, Any], origin: str) -> SpecT:
    """The table as a `schema`; a `UsageError` names where it came from and the key that is wrong."""
    try:
        return schema.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{origin}, key {key!r}: {first['msg']}.") from None


def model_card(name: str) -> ModelCard:
    """The model card called `name`, or at that path."""
    return read(ModelCard, find("models", name))


def size(name: str) -> Size:
    """The size called `name`, or at that path."""
    return read(Size, find("models/sizes", name))


def protocol_card(name: str) -> ProtocolCard:
    """The protocol called `name`, or at that path."""
    return read(ProtocolCard, find("protocols", name))
