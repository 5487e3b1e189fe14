"""The equation, kernel by kernel: price == what two real parties counted == what the sockets carried; and the value."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import Parties
from torch import Tensor
from torch.nn import functional

from pi_sim import specs
from pi_sim.cost import phantom
from pi_sim.graph.ops import Op
from pi_sim.graph.plain import PLAIN
from pi_sim.mpc.kernels import KERNELS

WORD = 8
EXAMPLES = settings(max_examples=8)
SMALL = st.integers(1, 6)
SHAPES = st.lists(SMALL, min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**31)


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Reals that fixed point represents exactly, so that only the kernel's own error is seen."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return (drawn * 2**16).round() / 2**16


def hold(
    parties: Parties,
    name: str,
    operands: list[Tensor],
    tolerance: float,
    protocol: str = "crypten",
    **attributes: object,
) -> None:
    """Check cost and value of one operation on these operands; all but bool and index operands are secret."""
    secret = tuple(operand.dtype in (torch.float64, torch.uint8) for operand in operands)
    op = Op(name, tuple(tuple(operand.shape) for operand in operands), secret, tuple(sorted(attributes.items())))  # type: ignore[arg-type]
    price = phantom.price(op, specs.protocol_card(protocol))
    counted = parties.compute(op, operands, protocol)
    assert counted.rounds == price.rounds
    assert max(counted.sent) == price.bytes
    assert counted.received == counted.sent[::-1]
    assert counted.offline == price.offline
    for rank in (0, 1):
        assert counted.crypten[rank]["rounds"] == price.rounds
        assert counted.crypten[rank]["bytes"] == counted.sent[rank] + counted.received[rank]
    exact = [operand.double() if known else operand for operand, known in zip(operands, secret, strict=True)]
    expected = PLAIN[name](*exact, **attributes)
    torch.testing.assert_close(counted.value.double(), expected, atol=tolerance, rtol=0)


@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_relu(parties: Parties, shape: tuple[int, ...], seed: int) -> None:
    hold(parties, "relu", [normal(seed, *shape, scale=3)], 1e-6)


@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_gelu_by_erf(parties: Parties, shape: tuple[int, ...], seed: int) -> None:
    hold(parties, "gelu", [normal(seed, *shape).clamp(-1, 1)], 0.02, approximate="none")


@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_gelu_by_tanh(parties: Parties, shape: tuple[int, ...], seed: int) -> None:
    hold(parties, "gelu", [normal(seed, *shape, scale=3)], 0.01, protocol="crypten_tanh", approximate="none")


@EXAMPLES
@given(batch=SMALL, rows=SMALL, inner=SMALL, columns=SMALL, seed=SEEDS)
def test_matmul(parties: Parties, batch: int, rows: int, inner: int, columns: int, seed: int) -> None:
    a, b = normal(seed, batch, rows, inner), normal(seed + 1, batch, inner, columns)
    hold(parties, "matmul", [a, b], 1e-4)


@EXAMPLES
@given(rows=SMALL, inner=SMALL, columns=SMALL, biased=st.booleans(), seed=SEEDS)
def test_linear(parties: Parties, rows: int, inner: int, columns: int, biased: bool, seed: int) -> None:
    operands = [normal(seed, rows, inner), normal(seed + 1, inner, columns), normal(seed + 2, columns)]
    hold(parties, "linear", operands if biased else operands[:2], 1e-4)


@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_multiply(parties: Parties, shape: tuple[int, ...], seed: int) -> None:
    hold(parties, "multiply", [normal(seed, *shape), normal(seed + 1, *shape)], 1e-4)


@EXAMPLES
@given(tokens=SMALL, vocabulary=st.integers(2, 9), width=SMALL, seed=SEEDS)
def test_embedding_is_exact(parties: Parties, tokens: int, vocabulary: int, width: int, seed: int) -> None:
    ids = torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(seed))
    onehot = functional.one_hot(ids, vocabulary).to(torch.uint8)
    hold(parties, "embedding", [normal(seed, vocabulary, width), onehot], 1e-9)


@EXAMPLES
@given(rows=SMALL, columns=st.integers(1, 20), seed=SEEDS)
def test_softmax(parties: Parties, rows: int, columns: int, seed: int) -> None:
    hold(parties, "softmax", [normal(seed, rows, columns, scale=3)], 0.02)


@EXAMPLES
@given(heads=st.integers(1, 3), length=st.integers(2, 20), seed=SEEDS)
def test_causal_softmax(parties: Parties, heads: int, length: int, seed: int) -> None:
    allowed = torch.ones(length, length, dtype=torch.bool).tril()[None]
    hold(parties, "softmax", [normal(seed, heads, length, length, scale=3), allowed], 0.02)


@EXAMPLES
@given(rows=SMALL, width=st.integers(8, 32), weights=st.integers(0, 2), seed=SEEDS)
def test_layernorm(parties: Parties, rows: int, width: int, weights: int, seed: int) -> None:
    affine = [normal(seed + 1, width), normal(seed + 2, width)][:weights]
    hold(parties, "layernorm", [normal(seed, rows, width, scale=2), *affine], 0.06, eps=1e-5)


@EXAMPLES
@given(shape=SHAPES, seed=SEEDS)
def test_reveal_reaches_the_client(parties: Parties, shape: tuple[int, ...], seed: int) -> None:
    hold(parties, "reveal", [normal(seed, *shape)], 1e-6)


@pytest.mark.parametrize("end", [-1, 1])
def test_gelu_holds_to_the_ends_of_its_domains(parties: Parties, end: int) -> None:
    for protocol, name, tolerance in (("crypten", "erf-taylor", 0.02), ("crypten_tanh", "tanh-form", 0.01)):
        (domain,) = KERNELS["gelu", name].domains
        hold(
            parties,
            "gelu",
            [torch.tensor([end * domain.high], dtype=torch.float64)],
            tolerance,
            protocol,
            approximate="none",
        )


@pytest.mark.parametrize("variance", [0.1, 150.0])
def test_layernorm_holds_to_the_ends_of_its_domain(parties: Parties, variance: float) -> None:
    (domain,) = KERNELS["layernorm", "newton"].domains
    assert variance in (domain.low, domain.high)
    x = torch.tensor([[-1.0, 1.0] * 8], dtype=torch.float64) * variance**0.5
    hold(parties, "layernorm", [(x * 2**16).round() / 2**16], 0.02, eps=1e-5)


@pytest.mark.parametrize("maximum", [-188.0, 290.0])
def test_softmax_holds_to_the_ends_of_its_domains(parties: Parties, maximum: float) -> None:
    exponent, row = KERNELS["softmax", "limit-newton"].domains
    assert maximum in (row.low, row.high)
    allowed = torch.tensor([[True, True, True, False]])
    scores = torch.tensor([[maximum, maximum - 1, maximum + exponent.low, 0.0]], dtype=torch.float64)
    hold(parties, "softmax", [scores, allowed], 0.02)


LOCAL: dict[str, Callable[[Parties], None]] = {
    "add": lambda parties: hold(parties, "add", [normal(1, 3, 4), normal(2, 4)], 1e-9),
    "scale": lambda parties: hold(parties, "scale", [normal(1, 3, 4)], 1e-3, factor=0.25),
    "view": lambda parties: hold(parties, "view", [normal(1, 3, 4)], 1e-9, shape=(2, 6)),
    "transpose": lambda parties: hold(parties, "transpose", [normal(1, 3, 4)], 1e-9, dim0=0, dim1=1),
    "slice": lambda parties: hold(parties, "slice", [normal(1, 3, 4)], 1e-9, dim=1, start=1, stop=3),
    "lookup": lambda parties: hold(parties, "lookup", [normal(1, 5, 4), torch.tensor([[3, 0, 3]])], 1e-9),
}


@pytest.mark.parametrize("name", LOCAL)
def test_local_operations(parties: Parties, name: str) -> None:
    LOCAL[name](parties)


def test_every_kernel_is_tested() -> None:
    """A kernel that is added here without a test of the equation fails this one."""
    tested = {"relu", "gelu", "matmul", "linear", "multiply", "embedding", "softmax", "layernorm", "reveal", *LOCAL}
    assert {op for op, _ in KERNELS} == tested
    assert {name for op, name in KERNELS if op == "gelu"} == {"erf-taylor", "tanh-form"}
