"""Functions of one number: activations, and what norm-free designs put in a norm's place."""

from typing import Any

from pi_sim.graph.aten.arithmetic import add, multiply
from pi_sim.graph.aten.registry import Translator, require, translates
from pi_sim.graph.builder import Builder, MaskedScores, Secret
from pi_sim.graph.ops import Shape


def _unary_translator(name: str) -> Translator:
    """A function that the vocabulary knows by torch's own name."""

    def translator(build: Builder, shape: Shape, x: Secret) -> Secret:
        return build.emit(name, [x], shape)

    return translates(name)(translator)


relu, silu, tanh, erf = map(_unary_translator, ("relu", "silu", "tanh", "erf"))


@translates("sigmoid")
def sigmoid(build: Builder, shape: Shape, x: Secret) -> Secret:
    """(1 + tanh(x / 2)) / 2, so that every protocol with a tanh has it."""
    halved = tanh(build, shape, multiply(build, shape, x, 0.5))
    return multiply(build, shape, add(build, shape, halved, 1.0), 0.5)


@translates("gelu")
def gelu(build: Builder, shape: Shape, x: Secret, *, approximate: str = "none") -> Secret:
    return build.emit("gelu", [x], shape, approximate=approximate)


@translates("leaky_relu")
def leaky_relu(build: Builder, shape: Shape, x: Secret, slope: float = 0.01) -> Secret | MaskedScores:
    """slope x + (1 - slope) relu(x): the slope is public, so that only the ReLU costs anything."""
    return add(build, shape, multiply(build, shape, x, slope), multiply(build, shape, relu(build, shape, x), 1 - slope))


@translates("clamp")
def clamp(build: Builder, shape: Shape, x: Secret, low: Any = None, high: Any = None) -> Secret:
    require(all(isinstance(end, int | float) for end in (low, high)), "its ends are not two public numbers")
    return build.emit("clamp", [x], shape, low=float(low), high=float(high))


@translates("hardtanh")
def hardtanh(build: Builder, shape: Shape, x: Secret, low: float = -1.0, high: float = 1.0) -> Secret:
    return clamp(build, shape, x, low, high)
