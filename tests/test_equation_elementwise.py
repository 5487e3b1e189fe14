"""The equation for functions of one number, each within its kernel's domain and at the domain's very ends.

`test_equation` insists that every kernel of such a function stands in ELEMENTWISE.
"""

from dataclasses import dataclass, field

import pytest
import torch
from equation import EXAMPLES, SEEDS, SHAPES, choosing, exact, hold, normal
from hypothesis import given
from parties import Parties
from torch import Tensor

from pi_sim.mpc.kernels import KERNELS


@dataclass(frozen=True)
class Case:
    """From where to where inputs may be, and how right the kernel is there."""

    low: float
    high: float
    tolerance: float
    relative: float = 0.0
    given: dict[str, object] = field(default_factory=dict)
    """Attributes of the operation."""


GELU = {"approximate": "none"}
FAR = 1000.0
"""An end for kernels that are right everywhere."""

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


KERNEL = pytest.mark.parametrize("kernel", ELEMENTWISE, ids="-".join)


def near(parties: Parties, kernel: tuple[str, str], x: Tensor) -> None:
    """Hold the kernel to its case on inputs moved into the domain."""
    case, (op, name) = ELEMENTWISE[kernel], kernel
    inputs = [exact(x.clamp(case.low, case.high))]
    hold(parties, op, inputs, case.tolerance, choosing(**{op: name}), case.relative, **case.given)


@KERNEL
@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_elementwise_kernels(parties: Parties, kernel: tuple[str, str], shape: tuple[int, ...], seed: int) -> None:
    near(parties, kernel, normal(seed, *shape, scale=3))


@KERNEL
def test_elementwise_kernels_hold_to_the_ends_of_their_domains(parties: Parties, kernel: tuple[str, str]) -> None:
    case = ELEMENTWISE[kernel]
    whole = torch.linspace(case.low, case.high, 501, dtype=torch.float64)
    for domain in KERNELS[kernel].domains:
        measured = domain.measure(whole)
        assert (domain.low, domain.high) == pytest.approx((measured.min().item(), measured.max().item()), abs=1e-6)
    near(parties, kernel, whole)
