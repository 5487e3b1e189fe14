"""The TOML facts: found in a wheel or in a checkout, read, and checked against their schema.

`models/*.toml` are model cards, `models/sizes/*.toml` sizes, `protocols/*.toml` protocols. Each is data that can be
reviewed without reading Python; a mistake in one is a `UsageError` that names the file and the key.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pi_sim.errors import UsageError

Kind = Literal["models", "models/sizes", "protocols"]


class Spec(BaseModel):
    """A checked, read-only TOML table: unknown keys are errors, so a typing mistake cannot pass unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Architecture(Spec):
    """What distinguishes one design from another at equal size."""

    family: Literal["gpt2"] = "gpt2"
    norm: Literal["layernorm", "none"]
    final_norm: Literal["layernorm", "none"]
    activation: Literal["gelu", "relu"]


class ModelCard(Spec):
    """`models/<name>.toml`: a design, and what its recipe changes against the size's."""

    name: str
    title: str
    source: str
    architecture: Architecture
    training: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Recipe(Spec):
    """How a size is trained: one recipe for all designs that are compared at that size."""

    tokens: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine"] = "linear"
    warmup_ratio: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    init_std: float = Field(gt=0)
    embedding_scale: float | None = Field(default=None, gt=0)
    logit_scale: float | None = Field(default=None, gt=0)
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)
    bf16: bool


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
