"""The equation for functions of one number, within each kernel's domain and at its ends.

`test_kernels` checks that `tests.helpers.kernel_cases.ELEMENTWISE` holds every kernel of such a function.
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


def assert_case(two_parties: TwoParties, kernel: tuple[str, str], x: Tensor) -> None:
    """Check the kernel on inputs clamped to the interval of its case."""
    case, (op, name) = ELEMENTWISE[kernel], kernel
    inputs = [exact(x.clamp(case.low, case.high))]
    assert_equation(
        two_parties,
        op,
        inputs,
        atol=case.tolerance,
        protocol=protocol_with(**{op: name}),
        rtol=case.relative,
        **case.attributes,
    )


@pytest.mark.parties
@KERNEL
@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_elementwise_kernels(
    two_parties: TwoParties, kernel: tuple[str, str], shape: tuple[int, ...], seed: int
) -> None:
    assert_case(two_parties, kernel, normal(seed, *shape, scale=3))


@pytest.mark.parties
@KERNEL
def test_elementwise_kernels_hold_to_the_ends_of_their_domains(
    two_parties: TwoParties, kernel: tuple[str, str]
) -> None:
    case = ELEMENTWISE[kernel]
    grid = torch.linspace(case.low, case.high, 501, dtype=torch.float64)
    for domain in KERNELS[kernel].domains:
        statistic = domain.statistic(grid)
        assert (domain.low, domain.high) == pytest.approx((statistic.min().item(), statistic.max().item()), abs=1e-6)
    assert_case(two_parties, kernel, grid)
