"""What a design is: the switches of surgery, and the cards that set them all."""

# MERGED: Dimensions of a model, and how a model of these dimensions is trained.

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pi_sim.specs.toml import TomlModel

Norm = Literal["layernorm", "rmsnorm", "none", "dyt", "dyt-hardtanh", "derf"]
Activation = Literal["gelu", "gelu_tanh", "relu", "leaky_relu", "learnable_lrelu", "silu", "quad", "identity"]
LayerIndices = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value),
]
"""Numbers of layers, as a list or, on a command line, as 0,2."""
SQUASHING_NORMS = ("dyt", "dyt-hardtanh", "derf")
REQUIRES: dict[str, tuple[tuple[str, ...], tuple[str | None, ...]]] = {
    "alpha_attention": (("norm",), SQUASHING_NORMS),
    "alpha_other": (("norm", "final_norm"), SQUASHING_NORMS),
    "slope": (("activation",), ("leaky_relu", "learnable_lrelu")),
    "slopes": (("activation",), ("learnable_lrelu",)),
    "temperature": (("attention",), (None, "softmax")),
}
"""Switches that mean something with certain values of other ones alone; 2relu and 2quad have no temperature, since
the one would not change by it and the other has its constant."""
DEPENDENT_SETTINGS = ("alpha_attention", "alpha_other", "slope", "slopes")
"""Those that say how another switch is carried out, and go with it."""


class Surgery(TomlModel):
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
    dropped_ffn: LayerIndices = ()
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
    def _check_effective(self) -> Self:
        """Refuse a switch that would do nothing: it would be taken for one that does."""
        plan = self.plan()
        for switch in self.explicit_switches:
            value = getattr(self, switch)
            if switch not in plan and switch not in DEPENDENT_SETTINGS:
                raise ValueError(f"{switch} = {value} changes nothing, and surgery takes nothing back; leave it out")
            others, values = REQUIRES.get(switch, ((), ()))
            if others and not any(getattr(self, other) in values for other in others):
                told = " or ".join(value for value in values if value)
                raise ValueError(f"{switch} = {value} does nothing unless {' or '.join(others)} is {told}")
        return self

    @model_validator(mode="after")
    def _check_consistent(self) -> Self:
        """Refuse what no model can be."""
        if self.ffn != "mlp" and self.norm not in (None, "none"):
            raise ValueError(f"ffn = {self.ffn} scales the residual, which is the FFN's input only with norm = none")
        if self.ffn == "fused" and self.activation not in (None, "identity"):
            raise ValueError("ffn = fused makes one matrix of two, which only activation = identity allows")
        if self.relu_after_norm and self.norm == "none":
            raise ValueError("relu_after_norm needs a norm before the ReLU, not norm = none")
        return self

    @property
    def explicit_switches(self) -> list[str]:
        """The switches that somebody chose, in a fixed order, be it to what they are anyway."""
        return [switch for switch in type(self).model_fields if switch in self.model_fields_set]

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

    @property
    def explicit_switches(self) -> list[str]:
        """Those that differ from what they are anyway: the design that a record tells names every switch."""
        return list(self.plan())


class ModelCard(TomlModel):
    """`models/<name>.toml`: a design, and what its recipe changes against the size's."""

    name: str
    title: str
    source: str
    architecture: Architecture
    training: dict[str, dict[str, Any]] = Field(default_factory=dict)


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
