"""What a design is: the switches of surgery, and the cards that set them all."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pi_sim.specs.files import TomlModel

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
