"""Inputs and max errors of elementwise kernels; every other kernel is tested at the example of its operation."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """Interval of inputs, and the kernel's max error there: absolute, and relative."""

    low: float
    high: float
    tolerance: float
    relative: float = 0.0
    attributes: dict[str, object] = field(default_factory=dict)


GELU = {"approximate": "none"}
FAR = 1000.0
"""End of the interval of kernels without a domain."""

ELEMENTWISE = {
    ("relu", "kogge-stone"): Case(-FAR, FAR, 1e-6),
    ("clamp", "kogge-stone"): Case(-FAR, FAR, 1e-6, attributes={"low": -1.0, "high": 1.0}),
    ("gelu", "erf-taylor"): Case(-1, 1, 0.02, attributes=GELU),
    ("gelu", "tanh-form"): Case(-18, 18, 0.01, attributes=GELU),
    ("gelu", "fourier-shaft"): Case(-FAR, FAR, 0.005, attributes=GELU),
    ("gelu", "poly"): Case(-32_000, 32_000, 0.02, attributes=GELU),
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

LEAN = "lean_outsourced"
LEAN_ELEMENTWISE = {
    "relu": 0.0,
    "gelu": 0.0003,
    "silu": 0.0012,
    "tanh": 0.0003,
    "erf": 0.0002,
}
"""Max error of each, for inputs of any size."""
