"""Dimensions of a model, and how a model of these dimensions is trained."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pi_sim.specs.files import TomlModel

OptionalScale = Annotated[
    Annotated[float, Field(gt=0)] | None, BeforeValidator(lambda value: None if value == "none" else value)
]
"""A learned factor as it starts; "none", which TOML and a command line can say, switches it off."""


class Recipe(TomlModel):
    """How a size is trained: one recipe for all designs that are compared at that size."""

    tokens: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "polynomial"] = "linear"
    warmup_ratio: float = Field(ge=0, le=1)
    weight_decay: float = Field(ge=0)
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    max_grad_norm: float = Field(gt=0)
    init_std: float = Field(gt=0)
    embedding_scale: OptionalScale = None
    logit_scale: OptionalScale = None
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)
    bf16: bool
    fp16: bool = False
    entropy_penalty: float = Field(default=0.0, ge=0)
    """Lambda of AERO's entropy regularization; 0 is without."""
    entropy_margin: float = Field(default=0.2, ge=0, le=1)
    """Gamma there: the deviation from a head's threshold that is free, as a share of the maximum entropy."""

    @model_validator(mode="after")
    def _check_effective(self) -> Self:
        """Refuse a margin that would do nothing."""
        if self.entropy_margin != type(self).model_fields["entropy_margin"].default and not self.entropy_penalty:
            raise ValueError(f"entropy_margin = {self.entropy_margin} does nothing without an entropy_penalty")
        return self


class Size(TomlModel):
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
    def _check_divides_into_heads(cls, width: int, info: ValidationInfo) -> int:
        heads = info.data.get("heads", 1)
        if width % heads:
            raise ValueError(f"a width of {width} does not divide into {heads} heads")
        return width
