"""Kernels that the tests of the equation cover, by file, and the inputs on which they are tested."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pi_sim import specs
from tests.helpers.equation import normal


@dataclass(frozen=True)
class Case:
    """The interval of inputs, and the error that the kernel may have there."""

    low: float
    high: float
    tolerance: float
    relative: float = 0.0
    given: dict[str, object] = field(default_factory=dict)
    """Attributes of the operation."""


GELU = {"approximate": "none"}
FAR = 1000.0
"""The end of the interval for kernels without a domain."""

ELEMENTWISE = {
    ("relu", "kogge-stone"): Case(-FAR, FAR, 1e-6),
    ("clamp", "kogge-stone"): Case(-FAR, FAR, 1e-6, given={"low": -1.0, "high": 1.0}),
    ("gelu", "erf-taylor"): Case(-1, 1, 0.02, given=GELU),
    ("gelu", "tanh-form"): Case(-18, 18, 0.01, given=GELU),
    ("gelu", "fourier-shaft"): Case(-FAR, FAR, 0.005, given=GELU),
    ("gelu", "poly"): Case(-32_000, 32_000, 0.02, given=GELU),
    ("silu", "fourier-shaft"): Case(-FAR, FAR, 0.006),
    ("tanh", "fourier-bounded"): Case(-4.6, 4.6, 0.0004),
    ("erf", "fourier-bounded"): Case(-3, 3, 0.0002),
    ("silu", "sigmoid"): Case(-490, 490, 0.008),
    ("tanh", "sigmoid"): Case(-245, 245, 0.006),
    ("erf", "taylor"): Case(-0.6, 0.6, 0.015),
    ("erf", "tanh-form"): Case(-13, 13, 0.006),
    ("reciprocal", "newton"): Case(0.005, 50, 0, relative=0.04),
    ("reciprocal", "normalised"): Case(2.0**-8, 2.0**14, 2**-15, relative=2e-4),
}

EXACT = 1e-9


@dataclass(frozen=True)
class LocalCase:
    """Operands, of which those in float32, long and bool are public, and attributes."""

    operands: list[Tensor]
    attributes: dict[str, object] = field(default_factory=dict)
    tolerance: float = EXACT


X, ROW = normal(1, 3, 4), normal(2, 4)

LOCAL = {
    "add": LocalCase([X, ROW]),
    "neg": LocalCase([X]),
    "sum": LocalCase([X], {"dim": 0}),
    "mask": LocalCase([X, torch.tensor([True, False, True, False])]),
    "scale": LocalCase([X], {"factor": 0.25}, 1e-3),
    "scale_by": LocalCase([X, torch.linspace(-1, 1, 12).view(3, 4)], tolerance=1e-3),
    "view": LocalCase([X], {"shape": (2, 6)}),
    "expand": LocalCase([normal(1, 2, 1, 3)], {"shape": (2, 4, 3)}),
    "transpose": LocalCase([X], {"dim0": 0, "dim1": 1}),
    "slice": LocalCase([X], {"dim": 1, "start": 1, "stop": 3}),
    "concat": LocalCase([X, normal(3, 3, 1), X], {"dim": 1}),
    "lookup": LocalCase([normal(1, 5, 4), torch.tensor([[3, 0, 3]])]),
}

LEAN = "lean"
LEAN_ELEMENTWISE = {
    "relu": 0.0,
    "gelu": 0.0003,
    "silu": 0.0012,
    "tanh": 0.0003,
    "erf": 0.0002,
}
"""Largest error of each, for inputs of any size."""
LEAN_CHOICE = specs.load_executable_protocol(LEAN).kernels
LEAN_TESTED = {
    *LEAN_ELEMENTWISE,
    *("clamp", "linear", "matmul", "multiply", "square", "scale", "scale_by"),
    *("layernorm", "rmsnorm", "softmax", "embedding"),
}
LEAN_KERNELS = {(op, LEAN_CHOICE[op]) for op in LEAN_TESTED} | {
    ("embedding", "split-lookup"),
    ("embedding", "truth-table"),
}
MPCFORMER = {("gelu", "quad"), ("softmax", "2relu"), ("softmax", "2quad")}

SHAFT = {("softmax", "ode"), ("embedding", "rotated")}
