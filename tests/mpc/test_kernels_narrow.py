"""The equation for the kernels of the protocol lean: results of 32, 48 and 64 bits, weights of the server."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pi_sim import specs
from pi_sim.graph.bundle import to_fixed_point
from pi_sim.graph.vocabulary import VOCABULARY
from pi_sim.mpc.kernels import KERNELS, activations, narrow_rows
from pi_sim.mpc.kernels.narrow_rows import PAIRS
from pi_sim.mpc.openings import AdditiveOpening, XorOpening, pack_low_bits, unpack_low_bits
from pi_sim.mpc.primitives import maxima, narrow, normalisation, server_weight
from pi_sim.mpc.primitives.ring import Factor
from pi_sim.mpc.primitives.truncation import shift_locally
from tests.helpers.equation import EXAMPLES, FEW, SEEDS, SHAPES, SMALL, assert_equation, exact, normal
from tests.helpers.kernel_cases import LEAN_ELEMENTWISE
from tests.helpers.two_processes import TwoParties
from tests.helpers.two_threads import run_both

LEAN = "lean"
CLOSE: dict[str, Any] = {"atol": 2e-4, "protocol": LEAN}
HALVED: dict[str, Any] = {"atol": 1e-3, "protocol": LEAN}  # two halvings cost two bits
BITS = st.sampled_from([{}, {"bits": 32}, {"bits": 48}])


def integers(seed: int, bits: int, *shape: int) -> Tensor:
    return torch.randint(-(2**bits), 2**bits, shape, generator=torch.Generator().manual_seed(seed))


def garbled(value: Tensor, bits: int, seed: int = 0) -> Tensor:
    """Return words that are right in their low bits alone."""
    return value + (integers(seed, 62 - bits, *value.shape) << bits)


@pytest.mark.parties
@EXAMPLES
@given(rows=SMALL, inner=SMALL, columns=SMALL, biased=st.booleans(), bits=BITS, seed=SEEDS)
def test_linear_maps(
    two_parties: TwoParties, rows: int, inner: int, columns: int, biased: bool, bits: dict[str, int], seed: int
) -> None:
    operands = [normal(seed, rows, inner), normal(seed + 1, inner, columns), normal(seed + 2, columns)]
    assert_equation(two_parties, "linear", operands if biased else operands[:2], **CLOSE, **bits)


@pytest.mark.parties
@EXAMPLES
@given(shape=SHAPES, first=st.booleans(), bits=BITS, seed=SEEDS)
def test_products_with_a_weight(
    two_parties: TwoParties, shape: tuple[int, ...], first: bool, bits: dict[str, int], seed: int
) -> None:
    operands = [normal(seed, *shape), normal(seed + 1, shape[-1])]
    index = 0 if first else 1
    assert_equation(two_parties, "multiply", operands[::-1] if first else operands, weight=index, **CLOSE, **bits)


@pytest.mark.parties
@EXAMPLES
@given(batch=SMALL, rows=SMALL, inner=SMALL, columns=SMALL, bits=BITS, seed=SEEDS)
def test_matrix_products(
    two_parties: TwoParties, batch: int, rows: int, inner: int, columns: int, bits: dict[str, int], seed: int
) -> None:
    operands = [normal(seed, batch, rows, inner), normal(seed + 1, batch, inner, columns)]
    assert_equation(two_parties, "matmul", operands, **CLOSE, **bits)


@pytest.mark.parties
@pytest.mark.parametrize("bits", [{}, {"bits": 32}, {"bits": 48}])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (2, 5), (1, 4)])
def test_products_of_causal_attention(two_parties: TwoParties, rows: int, columns: int, bits: dict[str, int]) -> None:
    """Scores are right where they are visible; weights are zero elsewhere."""
    visible = torch.ones(rows, columns).tril(columns - rows).bool()
    a, b = normal(1, 2, rows, 3), normal(2, 2, 3, columns)
    scores = assert_equation(two_parties, "matmul", [a, b], atol=math.inf, protocol=LEAN, causal_scores=True, **bits)
    torch.testing.assert_close(scores[:, visible], (a @ b)[:, visible], atol=1e-4, rtol=0)
    weights, values = normal(3, 2, rows, columns) * visible, normal(4, 2, columns, 3)
    assert_equation(two_parties, "matmul", [weights, values], causal_weights=True, **CLOSE, **bits)


@pytest.mark.parties
@EXAMPLES
@given(shape=SHAPES, bits=BITS, factor=st.sampled_from([0.125, -3.0, 1.7]), seed=SEEDS)
def test_other_products(
    two_parties: TwoParties, shape: tuple[int, ...], bits: dict[str, int], factor: float, seed: int
) -> None:
    x, y = normal(seed, *shape), normal(seed + 1, *shape)
    assert_equation(two_parties, "multiply", [x, y], **CLOSE, **bits)
    assert_equation(two_parties, "square", [x], **CLOSE, **bits)
    assert_equation(two_parties, "scale", [x], factor=factor, **CLOSE, **bits)
    assert_equation(two_parties, "scale_by", [x, y.float()], **CLOSE, **bits)


@pytest.mark.parties
@pytest.mark.parametrize("protocol", [LEAN, "lean_wan"])
@FEW
@given(heads=SMALL, rows=SMALL, past=st.integers(0, 13), causal=st.booleans(), seed=SEEDS)
def test_softmax(
    two_parties: TwoParties, protocol: str, heads: int, rows: int, past: int, causal: bool, seed: int
) -> None:
    scores = normal(seed, heads, rows, rows + past, scale=4.0)
    allowed = torch.ones(rows, rows + past).tril(past).bool()
    operands = [scores, allowed] if causal else [scores]
    assert_equation(two_parties, "softmax", operands, atol=0.0007, protocol=protocol, causal=causal)


@pytest.mark.parties
@pytest.mark.parametrize("name", LEAN_ELEMENTWISE)
@EXAMPLES
@given(SHAPES, SEEDS, st.sampled_from([0.1, 1.0, 10.0, 1000.0]))
def test_elementwise(two_parties: TwoParties, name: str, shape: tuple[int, ...], seed: int, scale: float) -> None:
    attributes = {"approximate": "none"} if name == "gelu" else {}
    tolerance = {"atol": LEAN_ELEMENTWISE[name] + 2**-15, "rtol": 2**-23}
    assert_equation(two_parties, name, [normal(seed, *shape, scale=scale)], protocol=LEAN, **tolerance, **attributes)


@pytest.mark.parametrize("name", LEAN_ELEMENTWISE)
@pytest.mark.parametrize("bits", [32, 64])
def test_elementwise_functions_read_32_bits_alone(name: str, bits: int) -> None:
    attributes = {"approximate": "none"} if name == "gelu" else {}
    grid = exact(torch.cat([torch.linspace(-12, 12, 24_001), torch.linspace(-16_383, 16_383, 999)]))
    function = vars(activations)[name.upper()]
    outcome = run_both(lambda rt, share: narrow.evaluate(rt, share, function, bits), garbled(to_fixed_point(grid), 32))
    value = outcome.value if bits == 64 else outcome.value.to(torch.int32)
    expected = VOCABULARY[name].reference(grid, **attributes)
    torch.testing.assert_close(value.double() / 2**16, expected, atol=LEAN_ELEMENTWISE[name] + 2**-15, rtol=2**-23)
    assert outcome.rounds == 4


@given(SEEDS)
def test_a_relu_of_words_is_exact_in_three_rounds(seed: int) -> None:
    words = torch.cat([integers(seed, 31, 200), torch.tensor([0, 1, -1, 2**31 - 1, -(2**31)])])
    outcome = run_both(lambda rt, share: maxima.rectify(rt, share.to(torch.int32)).long(), words)
    assert torch.equal(outcome.value.to(torch.int32), words.clamp(min=0).to(torch.int32))
    assert outcome.rounds == 3


@given(size=st.integers(2, 4), seed=SEEDS)
def test_the_largest_of_a_group_is_exact(size: int, seed: int) -> None:
    words = integers(seed, 30, 3, size, 20)
    words[0, -1] = words[0, 0]
    outcome = run_both(lambda rt, share: maxima.largest(rt, share).long(), garbled(words, 32, seed))
    assert torch.equal(outcome.value.to(torch.int32).long(), words.amax(-2))
    assert outcome.rounds == 4


@given(SEEDS)
def test_a_lift_is_exact(seed: int) -> None:
    words = torch.cat([integers(seed, 30, 200), torch.tensor([0, 2**30 - 1, -(2**30)])])
    outcome = run_both(narrow.lift, garbled(words, 32, seed))
    assert torch.equal(outcome.value, words)
    assert (outcome.rounds, outcome.offline) == (1, 12 * len(words))


@pytest.mark.parametrize("bits", [18, 26, 32])
@given(seed=SEEDS)
def test_a_lift_of_few_bits_is_exact(bits: int, seed: int) -> None:
    lowest = -(2 ** (bits - 2))
    words = lowest + integers(seed, 40, 100).remainder(2 ** (bits - 1))
    outcome = run_both(lambda rt, share: narrow.lift(rt, share, bits, lowest), garbled(words, bits, seed))
    assert torch.equal(outcome.value, words)


@given(SEEDS)
def test_rows_of_words_are_squared_and_multiplied_from_one_opening(seed: int) -> None:
    words, factors = integers(seed, 24, 5, 7), integers(seed + 1, 20, 5)

    def compute(rt: Any, share: Tensor, factor: Tensor) -> Tensor:
        rows = normalisation.RowWords(rt, share, len(share), lambda values: values.unsqueeze(-1), squares=True)
        (rows.m,) = rt.open(rows.opening)
        return torch.cat([rows.square_sums().unsqueeze(-1), rows.multiply(factor)], -1)

    outcome = run_both(compute, garbled(words, 32, seed), factors)
    expected = torch.cat([words.square().sum(-1, keepdim=True), words * factors.unsqueeze(-1)], -1)
    assert torch.equal(outcome.value, expected)
    assert outcome.rounds == 2


@given(SEEDS, st.integers(1, 61))
def test_the_product_of_a_servers_weight_is_truncated_within_one_unit(seed: int, bits: int) -> None:
    words = torch.cat([integers(seed, bits, 300), torch.tensor([0, 1, -1, 2**61, -(2**61)])])

    def compute(rt: Any, share: Tensor) -> Tensor:
        return server_weight.truncate_exactly(rt, share, server_weight.prepare_wrap(rt, share))

    outcome = run_both(compute, words)
    assert set((outcome.value - (words >> 16)).tolist()) <= {0, 1}


@given(SEEDS, SMALL, SMALL, SMALL)
def test_a_servers_weight_is_masked_at_the_client(seed: int, m: int, k: int, n: int) -> None:
    x, weight = integers(seed, 62, m, k), integers(seed + 1, 20, k, n)
    views: dict[int, Tensor] = {}

    def compute(rt: Any, share: Tensor, _: Tensor) -> Tensor:
        (handle,) = server_weight.open_server_weights(rt, [weight if rt.rank == 0 else torch.zeros_like(weight)])
        views[rt.rank] = handle.factor.words
        prepared = server_weight.prepare_product(rt, (m, k), handle, "matmul")
        return server_weight.multiply_prepared(rt, share, prepared)

    outcome = run_both(compute, x, weight)
    assert torch.equal(outcome.value, x @ weight)
    assert torch.equal(views[0], weight)
    assert not torch.equal(views[1], weight)


@given(SEEDS, st.sampled_from([32, 48, 64]), SHAPES)
def test_low_bits_survive_packing(seed: int, bits: int, shape: tuple[int, ...]) -> None:
    words = integers(seed, 62, *shape)
    packed = pack_low_bits(words, bits)
    assert packed.numel() == -(-words.numel() * bits // 64)
    assert not ((unpack_low_bits(packed, bits, words).long() - words) << (64 - bits)).any()


@given(SEEDS, SHAPES)
def test_several_openings_share_a_message(seed: int, shape: tuple[int, ...]) -> None:
    words = integers(seed, 62, *shape)

    def compute(rt: Any, share: Tensor) -> Tensor:
        bits = (share & 3).to(torch.uint8)
        values = rt.open(*(AdditiveOpening(share, size) for size in (32, 48, 64)), XorOpening(bits, 2))
        own = torch.stack([value.long().reshape(-1) for value in values])
        return own if rt.rank == 0 else torch.zeros_like(own)

    narrow_value, middle, wide, bits = run_both(compute, words).value
    flat = words.reshape(-1)
    assert torch.equal(narrow_value, flat.to(torch.int32).long())
    assert not ((middle - flat) << 16).any()
    assert torch.equal(wide, flat)
    assert int(bits.max()) < 4


@given(SEEDS)
def test_a_local_shift_is_right_in_the_bits_that_remain(seed: int) -> None:
    words = integers(seed, 61, 500)
    outcome = run_both(lambda rt, share: shift_locally(share, 16), words)
    error = ((outcome.value << 16) >> 16) - (words >> 16)
    assert set(((error << 16) >> 16).tolist()) <= {-1, 0, 1}


@pytest.mark.parametrize("length", [2, 128, 2048])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_weights_of_long_rows_sum_to_one(length: int, spread: float) -> None:
    scores = exact(torch.randn(3, length, generator=torch.Generator().manual_seed(length)) * spread)
    words = garbled(to_fixed_point(scores), 32)
    value = run_both(lambda rt, share: narrow_rows._softmax_of_share(rt, share, None, False, PAIRS), words).value
    value = value.double() / 2**16
    assert float((value.sum(-1) - 1).abs().max()) < 0.001
    assert float((value - scores.softmax(-1)).abs().max()) < 0.0007 + 0.00003 * length


@pytest.mark.parties
@pytest.mark.parametrize("bits", [32, 64])
def test_norms_halve_rows_that_do_not_fit_their_words(two_parties: TwoParties, bits: int) -> None:
    x = normal(4, 3, 64)
    x[0, 0], x[1, 1] = 30_000, -25_000
    assert_equation(two_parties, "rmsnorm", [x], eps=1e-5, halvings=2, bits=bits, **HALVED)
    centred = x - x.mean(-1, keepdim=True)
    assert_equation(two_parties, "layernorm", [centred], eps=1e-5, centred=True, halvings=2, bits=bits, **HALVED)


def test_norms_read_32_bits_alone() -> None:
    x = exact(
        torch.randn(6, 768, generator=torch.Generator().manual_seed(1))
        * torch.tensor([[0.05], [1], [3], [20], [100], [400]])
    )
    words = garbled(to_fixed_point(x), 32)
    outcome = run_both(lambda rt, share: narrow_rows._divide_by_rms(rt, share, 1e-5, 64, 0), words)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert float((outcome.value.double() / 2**16 - expected).abs().max()) < 0.0005
    assert outcome.rounds == 9


def test_a_factor_is_split_once() -> None:
    factor = Factor(integers(1, 18, 8, 8))
    assert torch.equal(factor.multiply_by_limbs(integers(2, 62, 9, 8)), integers(2, 62, 9, 8) @ factor.words)
    assert len(factor._limbs) == 1


def test_every_kernel_of_lean_declares_the_domain_of_its_result_or_operands() -> None:
    protocol = specs.load_executable_protocol(LEAN)
    exact_ops = {"embedding"}
    for op, name in protocol.kernels.items():
        kernel = KERNELS[op, name]
        assert kernel.domains or kernel.result_domains or op in exact_ops, (op, name)


@pytest.mark.parametrize("magnitude_bits", [25, 35, 46, 62])
@pytest.mark.parametrize("bits", [32, 48, 64])
def test_limbs_are_exact_at_the_largest_magnitudes(bits: int, magnitude_bits: int) -> None:
    words = torch.full((256, 8), 2**magnitude_bits - 1)
    words[0, 0] = -1
    first = integers(1, 60, 9, 256)
    assert not ((Factor(words).multiply_by_limbs(first, bits) - first @ words) << (64 - bits)).any()
