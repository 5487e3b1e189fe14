"""The equation for functions of one number, each within its kernel's domain and at the domain's very ends.

`test_kernels` insists that every kernel of such a function is in ELEMENTWISE of `tests.helpers.kernel_cases`.
"""

import pytest
import torch
from hypothesis import given
from torch import Tensor

from pi_sim.mpc.kernels import KERNELS
from tests.helpers.equation import EXAMPLES, SEEDS, SHAPES, assert_equation, exact, normal, protocol_with
from tests.helpers.kernel_cases import ELEMENTWISE
from tests.helpers.two_processes import TwoParties

KERNEL = pytest.mark.parametrize("kernel", ELEMENTWISE, ids="-".join)


def near(two_parties: TwoParties, kernel: tuple[str, str], x: Tensor) -> None:
    """Hold the kernel to its case on inputs moved into the domain."""
    case, (op, name) = ELEMENTWISE[kernel], kernel
    inputs = [exact(x.clamp(case.low, case.high))]
    assert_equation(
        two_parties,
        op,
        inputs,
        atol=case.tolerance,
        protocol=protocol_with(**{op: name}),
        rtol=case.relative,
        **case.given,
    )


@pytest.mark.parties
@KERNEL
@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_elementwise_kernels(
    two_parties: TwoParties, kernel: tuple[str, str], shape: tuple[int, ...], seed: int
) -> None:
    near(two_parties, kernel, normal(seed, *shape, scale=3))


@pytest.mark.parties
@KERNEL
def test_elementwise_kernels_hold_to_the_ends_of_their_domains(
    two_parties: TwoParties, kernel: tuple[str, str]
) -> None:
    case = ELEMENTWISE[kernel]
    whole = torch.linspace(case.low, case.high, 501, dtype=torch.float64)
    for domain in KERNELS[kernel].domains:
        measured = domain.statistic(whole)
        assert (domain.low, domain.high) == pytest.approx((measured.min().item(), measured.max().item()), abs=1e-6)
    near(two_parties, kernel, whole)
