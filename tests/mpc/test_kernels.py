"""The equation for each kernel: price == both parties' counters == bytes on the sockets; and the value."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pi_sim import specs
from pi_sim.cost import derived
from pi_sim.graph.ops import Op
from pi_sim.graph.vocabulary import VOCABULARY
from pi_sim.inference.bench.workloads import draw_operands, example_workload
from pi_sim.mpc.kernels import KERNELS
from pi_sim.mpc.kernels.costs import Dimensions
from pi_sim.mpc.kernels.registry import UNIVERSAL, kernel_names
from pi_sim.records import BenchSize
from tests.helpers.equation import (
    EXAMPLES,
    FEW,
    SEEDS,
    SHAPES,
    SMALL,
    assert_declared_cost,
    assert_equation,
    exact,
    normal,
    protocol_with,
)
from tests.helpers.two_processes import TwoParties


@EXAMPLES
@given(batch=SMALL, rows=SMALL, inner=SMALL, columns=SMALL, seed=SEEDS)
def test_matmul(two_parties: TwoParties, batch: int, rows: int, inner: int, columns: int, seed: int) -> None:
    a, b = normal(seed, batch, rows, inner), normal(seed + 1, batch, inner, columns)
    assert_equation(two_parties, "matmul", [a, b], atol=1e-4)


@EXAMPLES
@given(rows=SMALL, inner=SMALL, columns=SMALL, biased=st.booleans(), seed=SEEDS)
def test_linear(two_parties: TwoParties, rows: int, inner: int, columns: int, biased: bool, seed: int) -> None:
    operands = [normal(seed, rows, inner), normal(seed + 1, inner, columns), normal(seed + 2, columns)]
    assert_equation(two_parties, "linear", operands if biased else operands[:2], atol=1e-4)


@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_multiply(two_parties: TwoParties, shape: tuple[int, ...], seed: int) -> None:
    assert_equation(two_parties, "multiply", [normal(seed, *shape), normal(seed + 1, *shape)], atol=1e-4)


@pytest.mark.parametrize(
    ("first", "second"), [((1,), (2, 3, 4)), ((2, 3, 4), (4,)), ((2, 3, 4), (2, 3, 1)), ((2, 2, 3, 3), (2, 1, 1))]
)
def test_multiply_opens_an_operand_before_it_is_broadcast(
    two_parties: TwoParties, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    a, b = normal(1, *first), normal(2, *second)
    assert_equation(two_parties, "multiply", [a, b], atol=1e-4)
    op = Op("multiply", (first, second), (True, True))
    assert derived.derive_price(op, specs.load_executable_protocol("crypten")).cost.bytes == 8 * (a.numel() + b.numel())


@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_square(two_parties: TwoParties, shape: tuple[int, ...], seed: int) -> None:
    assert_equation(two_parties, "square", [normal(seed, *shape, scale=3)], atol=1e-4)


@EXAMPLES
@given(tokens=SMALL, vocabulary=st.integers(2, 9), width=SMALL, seed=SEEDS)
def test_embedding_is_exact(two_parties: TwoParties, tokens: int, vocabulary: int, width: int, seed: int) -> None:
    ids = torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(seed))
    onehot = functional.one_hot(ids, vocabulary).to(torch.uint8)
    assert_equation(two_parties, "embedding", [normal(seed, vocabulary, width), onehot], atol=1e-9)


SOFTMAX = pytest.mark.parametrize("kernel", ["limit-newton", "limit-newton-max"])


@SOFTMAX
@FEW
@given(rows=SMALL, columns=st.integers(1, 20), seed=SEEDS)
def test_softmax(two_parties: TwoParties, kernel: str, rows: int, columns: int, seed: int) -> None:
    assert_equation(
        two_parties,
        "softmax",
        [normal(seed, rows, columns, scale=3)],
        atol=0.02,
        protocol=protocol_with(softmax=kernel),
    )


@SOFTMAX
@FEW
@given(heads=st.integers(1, 3), length=st.integers(2, 20), seed=SEEDS)
def test_causal_softmax(two_parties: TwoParties, kernel: str, heads: int, length: int, seed: int) -> None:
    allowed = torch.ones(length, length, dtype=torch.bool).tril()[None]
    scores = normal(seed, heads, length, length, scale=3)
    assert_equation(two_parties, "softmax", [scores, allowed], atol=0.02, protocol=protocol_with(softmax=kernel))


def test_a_maximum_without_its_position_costs_less() -> None:
    op = Op("softmax", ((128, 128),), (True,))
    stock, relu_based = (
        derived.derive_price(op, specs.load_executable_protocol(protocol_with(softmax=kernel))).cost
        for kernel in ("limit-newton", "limit-newton-max")
    )
    assert (stock.rounds, relu_based.rounds) == (116, 100)
    assert relu_based.bytes < 0.42 * stock.bytes


@EXAMPLES
@given(rows=SMALL, width=st.integers(8, 32), weights=st.integers(0, 2), seed=SEEDS)
def test_layernorm(two_parties: TwoParties, rows: int, width: int, weights: int, seed: int) -> None:
    affine = [normal(seed + 1, width), normal(seed + 2, width)][:weights]
    assert_equation(two_parties, "layernorm", [normal(seed, rows, width, scale=2), *affine], atol=0.06, eps=1e-5)


@EXAMPLES
@given(rows=SMALL, width=st.integers(8, 32), weights=st.integers(0, 1), seed=SEEDS)
def test_rmsnorm(two_parties: TwoParties, rows: int, width: int, weights: int, seed: int) -> None:
    gamma = [normal(seed + 1, width)][:weights]
    assert_equation(two_parties, "rmsnorm", [normal(seed, rows, width, scale=2), *gamma], atol=0.06, eps=1e-6)


@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_reveal_reaches_the_client(two_parties: TwoParties, shape: tuple[int, ...], seed: int) -> None:
    assert_equation(two_parties, "reveal", [normal(seed, *shape)], atol=1e-6)


@pytest.mark.parametrize("end", [0.1, 150.0])
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_norms_hold_to_the_ends_of_their_domain(two_parties: TwoParties, norm: str, end: float) -> None:
    (domain,) = KERNELS[norm, "newton"].domains
    assert end in (domain.low, domain.high)
    x = torch.tensor([[-1.0, 1.0] * 8], dtype=torch.float64) * end**0.5
    assert_equation(two_parties, norm, [exact(x)], atol=0.02, eps=1e-5)


@pytest.mark.parametrize("maximum", [-188.0, 290.0])
def test_softmax_holds_to_the_ends_of_its_domains(two_parties: TwoParties, maximum: float) -> None:
    exponent, row, _ = KERNELS["softmax", "limit-newton"].domains
    assert maximum in (row.low, row.high)
    allowed = torch.tensor([[True, True, True, False]])
    scores = torch.tensor([[maximum, maximum - 1, maximum + exponent.low, 0.0]], dtype=torch.float64)
    assert_equation(two_parties, "softmax", [scores, allowed], atol=0.02)


@pytest.mark.parametrize("visible", [1, 50])
def test_softmax_holds_to_the_ends_of_its_row_sums(two_parties: TwoParties, visible: int) -> None:
    """The row sum of a flat row is its number of visible positions."""
    *_, total = KERNELS["softmax", "limit-newton"].domains
    assert visible in (total.low, total.high)
    allowed = torch.arange(64)[None] < visible
    scores = torch.full((2, 64), -3.0, dtype=torch.float64)
    assert_equation(two_parties, "softmax", [scores, allowed], atol=1e-4, rtol=0.05)
    assert total.statistic(scores, allowed).tolist() == [visible] * 2


ALIGNED = BenchSize(tokens=64, width=8, heads=2, vocabulary=10)
"""Sizes at which no opening is padded."""
UNEVEN = BenchSize(tokens=5, width=6, heads=2, vocabulary=7)
OTHER_SETTINGS = {"exp_iterations": 9, "reciprocal_nr_iters": 9, "sqrt_nr_iters": 4, "erf_iterations": 7}
TOLERANCES = {("softmax", "ode"): 0.2}
EVERY_KERNEL = pytest.mark.parametrize("kernel", KERNELS, ids="-".join)


def protocol_of(kernel: tuple[str, str], **settings: object) -> str:
    """Write a protocol that has this kernel."""
    op, name = kernel
    return protocol_with(**({} if name == UNIVERSAL else {op: name}), settings=settings)


@EVERY_KERNEL
@pytest.mark.parametrize("settings", [{}, OTHER_SETTINGS], ids=["stock", "other"])
def test_every_kernel_costs_what_it_declares(kernel: tuple[str, str], settings: dict[str, object]) -> None:
    op, protocol = example_workload(kernel[0], ALIGNED).op, protocol_of(kernel, **settings)
    assert_declared_cost(op, protocol, padded=False)
    assert KERNELS[kernel].cost or kernel == ("softmax", "limit-newton")


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("name", kernel_names("clamp"))
def test_a_clamp_at_zero_costs_what_it_declares(name: str, low: float, high: float) -> None:
    op = Op("clamp", ((64, 8),), (True,), (("high", high), ("low", low)))
    assert_declared_cost(op, protocol_of(("clamp", name)), padded=False)


@EVERY_KERNEL
def test_rounds_of_the_steps_in_a_docstring_add_up(kernel: tuple[str, str]) -> None:
    """Steps whose rounds depend on the shape are left out: theirs are "per" something."""
    text = KERNELS[kernel].function.__doc__ or ""
    steps, cost = re.findall(r"\((\d+) rounds?\)", text), KERNELS[kernel].cost
    if steps and cost and "rounds per" not in text:
        protocol = specs.load_executable_protocol("crypten")
        declared = cost(Dimensions(example_workload(kernel[0], UNEVEN).op, protocol.settings))
        assert sum(map(int, steps)) == declared.rounds


@EVERY_KERNEL
def test_every_kernel_keeps_the_equation(two_parties: TwoParties, kernel: tuple[str, str]) -> None:
    """At the example of its operation; the value is compared if the operands are in the domain of the kernel."""
    name, domains = kernel[0], KERNELS[kernel].domains
    workload = example_workload(name, UNEVEN)
    operands = draw_operands(workload.operands)
    if [domain.quantity for domain in domains] == ["|input|"]:
        operands = [exact(operands[0].clamp(-domains[0].high, domains[0].high))]
    statistics = [(domain, domain.statistic(*operands)) for domain in domains]
    accurate = all(domain.low <= values.min() and values.max() <= domain.high for domain, values in statistics)
    tolerance = 1e-6 if VOCABULARY[name].kind != "interactive" else TOLERANCES.get(kernel, 0.05)
    atol, attributes = tolerance if accurate else math.inf, dict(workload.op.attributes)
    assert_equation(two_parties, name, operands, atol=atol, protocol=protocol_of(kernel), **attributes)


@pytest.mark.parametrize("public", [torch.tensor(5.0), torch.linspace(-1, 1, 12).view(3, 4)])
def test_a_public_summand_is_added_once(two_parties: TwoParties, public: Tensor) -> None:
    assert_equation(two_parties, "add", [normal(2, 4), public], atol=1e-4)
