"""Schemas of designs (the switches of surgery), model cards, training recipes and sizes."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pi_sim.specs.toml import TomlModel

Norm = Literal["layernorm", "rmsnorm", "none", "dyt", "dyt-hardtanh", "derf"]
Activation = Literal["gelu", "gelu_tanh", "relu", "leaky_relu", "learnable_lrelu", "silu", "quad", "identity"]
LayerIndices = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value),
]
"""Numbers of layers: a list or, on a command line, a string such as 0,2."""
SQUASHING_NORMS = ("dyt", "dyt-hardtanh", "derf")
REQUIRES: dict[str, tuple[tuple[str, ...], tuple[str | None, ...]]] = {
    "alpha_attention": (("norm",), SQUASHING_NORMS),
    "alpha_other": (("norm", "final_norm"), SQUASHING_NORMS),
    "slope": (("activation",), ("leaky_relu", "learnable_lrelu")),
    "slopes": (("activation",), ("learnable_lrelu",)),
    "temperature": (("attention",), (None, "softmax")),
}
"""Switches that have an effect only with certain values of other switches. 2relu and 2quad have no temperature: it
would not change the former, and the latter has its constant."""
DEPENDENT_SETTINGS = ("alpha_attention", "alpha_other", "slope", "slopes")
"""Settings of another switch, which are replaced with it."""


class Surgery(TomlModel):
    """Switches of a design, which `pi_sim.zoo.surgery` carries out; None leaves the model as it is."""

    norm: Norm | None = None
    final_norm: Norm | None = None
    activation: Activation | None = None
    attention: Literal["softmax", "2relu", "2quad"] | None = None
    temperature: bool = False
    """True if every head learns a temperature of its softmax."""
    relu_after_norm: bool = False
    """True for a ReLU after every norm of the blocks: the second stage of relufication."""
    ffn: Literal["mlp", "scaled", "fused"] = "mlp"
    """Scaled: learned factors of the FFN and its residual; fused: scaled, with one matrix instead of two."""
    dropped_ffn: LayerIndices = ()
    """Layers without an FFN."""
    alpha_attention: float = Field(default=1.0, gt=0)
    """Initial alpha of DyT and Derf before attention."""
    alpha_other: float = Field(default=1.0, gt=0)
    """Initial alpha of every other DyT and Derf."""
    slope: float = Field(default=0.01, ge=0)
    """Slope of the leaky ReLU for negative inputs; initial slope of the learnable one."""
    slopes: Literal["layer", "global"] = "layer"
    """Layer: every layer learns a slope; global: all layers share one."""

    @model_validator(mode="after")
    def _check_effective(self) -> Self:
        """Refuse a switch without an effect: the user expects one."""
        plan = self.plan()
        for switch in self.explicit_switches:
            value = getattr(self, switch)
            if switch not in plan and switch not in DEPENDENT_SETTINGS:
                raise ValueError(f"{switch} = {value} changes nothing, and surgery takes nothing back; leave it out")
            required, values = REQUIRES.get(switch, ((), ()))
            if required and not any(getattr(self, name) in values for name in required):
                allowed = " or ".join(value for value in values if value)
                raise ValueError(f"{switch} = {value} does nothing unless {' or '.join(required)} is {allowed}")
        return self

    @model_validator(mode="after")
    def _check_consistent(self) -> Self:
        """Refuse switches that no model can combine."""
        if self.ffn != "mlp" and self.norm not in (None, "none"):
            raise ValueError(f"ffn = {self.ffn} scales the residual, which is the FFN's input only with norm = none")
        if self.ffn == "fused" and self.activation not in (None, "identity"):
            raise ValueError("ffn = fused makes one matrix of two, which only activation = identity allows")
        if self.relu_after_norm and self.norm == "none":
            raise ValueError("relu_after_norm needs a norm before the ReLU, not norm = none")
        return self

    @property
    def explicit_switches(self) -> list[str]:
        """Switches set explicitly, including those set to their default, in a fixed order."""
        return [switch for switch in type(self).model_fields if switch in self.model_fields_set]

    def plan(self) -> dict[str, Any]:
        """Return the switches that differ from their defaults, as JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Architecture(Surgery):
    """Complete design: a family of models, and every switch."""

    family: Literal["gpt2", "gpt_neox", "opt", "llama"] = "gpt2"
    norm: Norm
    final_norm: Norm
    activation: Activation
    attention: Literal["softmax", "2relu", "2quad"] = "softmax"

    @property
    def explicit_switches(self) -> list[str]:
        """Switches that differ from their default: the design in a record names them all."""
        return list(self.plan())


class ModelCard(TomlModel):
    """Model card, `models/<name>.toml`: a design, and its changes to the size's recipe."""

    name: str
    title: str
    source: str
    architecture: Architecture
    training: dict[str, dict[str, Any]] = Field(default_factory=dict)


OptionalScale = Annotated[
    Annotated[float, Field(gt=0)] | None, BeforeValidator(lambda value: None if value == "none" else value)
]
"""Initial value of a learned factor; "none", for TOML and command lines, switches it off."""


class Recipe(TomlModel):
    """Training recipe of a size, for all designs that are compared at that size."""

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
    """Lambda of AERO's entropy regularization; 0 switches it off."""
    entropy_margin: float = Field(default=0.2, ge=0, le=1)
    """Gamma of the same: deviation from a head's threshold without penalty, as a share of the maximum entropy."""

    @model_validator(mode="after")
    def _check_effective(self) -> Self:
        """Refuse a margin without an effect."""
        if self.entropy_margin != type(self).model_fields["entropy_margin"].default and not self.entropy_penalty:
            raise ValueError(f"entropy_margin = {self.entropy_margin} does nothing without an entropy_penalty")
        return self


class Size(TomlModel):
    """Size, `models/sizes/<name>.toml`: the dimensions of a model, and a training recipe for them."""

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
