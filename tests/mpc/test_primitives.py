"""Primitives between two threads: values against plain integers, and the rounds and bytes that they take."""

import math
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pi_sim.mpc.dealer.correlations import TensorSpec
from pi_sim.mpc.dealer.prg import AesCtrPrg
from pi_sim.mpc.kernels import activations, softmax
from pi_sim.mpc.primitives import beaver, comparison, fourier, piecewise, rows
from pi_sim.mpc.primitives.comparison import interval_bits
from pi_sim.mpc.primitives.fourier import FourierSeries, basis
from pi_sim.mpc.primitives.piecewise import RELU
from pi_sim.mpc.primitives.ring import Factor, LimbMatmulMode
from pi_sim.mpc.primitives.truncation import lift_u32_to_u64, truncate
from tests.helpers.two_threads import run_both

SEEDS = st.integers(0, 2**31)
BITS = st.integers(2, 61)
EDGES = torch.tensor([0, 1, -1, 2**61, -(2**61), 2**62 - 1, -(2**62), 2**32, -(2**32), 65535, 65536, -65536])


def integers(seed: int, bits: int, *shape: int) -> Tensor:
    return torch.randint(-(2**bits), 2**bits, shape, generator=torch.Generator().manual_seed(seed))


def ring(values: Tensor) -> Tensor:
    return (values.double() * 2**16).round().long()


def reals(share: Tensor) -> Tensor:
    return share.double() / 2**16


@given(SEEDS, BITS, st.integers(1, 40))
def test_truncation_is_off_by_one_unit_at_most(seed: int, bits: int, fraction: int) -> None:
    x = torch.cat([integers(seed, bits, 300), EDGES])
    result = run_both(lambda rt, share: truncate(rt, share, fraction), x)
    assert set((result.value - (x >> fraction)).tolist()) <= {0, 1}
    assert (result.rounds, result.bytes, result.offline) == (1, 8 * len(x), 16 * len(x))


def packed_bytes(length: int, bits: int) -> int:
    """Return the bytes of `length` values of `bits` bits, padded to words."""
    return 8 * math.ceil(length / (64 // bits))


@given(SEEDS, st.integers(2, 30))
def test_relu_is_exact(seed: int, bits: int) -> None:
    x = torch.cat([integers(seed, bits, 300), EDGES[EDGES.abs() < 2**31]])
    result = run_both(lambda rt, share: piecewise.evaluate(rt, share, RELU), x)
    assert torch.equal(result.value, x.clamp(min=0))
    plane = -(-2 * len(x) // 8)
    digits, groups = packed_bytes(7 * plane, 8), packed_bytes(2 * -(-len(x) // 8), 8)
    selection = packed_bytes(len(x), 1)
    assert (result.rounds, result.bytes) == (4, 8 * len(x) + digits + groups + selection)


@given(SEEDS, BITS, st.sampled_from([comparison.NARROW, comparison.WIDE]))
def test_comparison_is_exact(seed: int, bits: int, word: torch.dtype) -> None:
    x = torch.cat([integers(seed, bits, 300), EDGES])
    x = x[x.abs() < 2 ** (8 * word.itemsize - 1)]
    result = run_both(lambda rt, share: interval_bits(rt, share, [0.0], word), x)
    assert torch.equal(result.value, torch.stack([x < 0, x >= 0]).long())


@given(SEEDS, st.integers(1, 29), st.integers(1, 20), st.integers(-100, 100))
def test_a_32_bit_word_is_lifted(seed: int, bits: int, fraction: int, above: int) -> None:
    x, lowest = torch.cat([integers(seed, bits, 301), EDGES[EDGES.abs() < 2**30]]), -(2**30) + (above << fraction)
    x = x + (above << fraction)
    result = run_both(lambda rt, share: lift_u32_to_u64(rt, share.int(), fraction, lowest), x)
    assert set((result.value - (x >> fraction)).tolist()) <= {0, 1}
    assert (result.rounds, result.bytes, result.offline) == (1, 8 * math.ceil(len(x) / 2), 16 * len(x))


@given(SEEDS, st.lists(st.integers(-1000, 1000), min_size=1, max_size=5, unique=True))
def test_interval_bits_mark_the_interval(seed: int, ends: list[int]) -> None:
    thresholds = sorted(ends)
    x = torch.cat([integers(seed, 27, 100), ring(torch.tensor(thresholds))])
    result = run_both(lambda rt, share: interval_bits(rt, share, thresholds), x).value
    expected = torch.bucketize(x, ring(torch.tensor(thresholds)), right=True)
    assert torch.equal(result.argmax(0), expected)
    assert torch.equal(result.sum(0), torch.ones_like(x))


@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_products_are_those_of_the_ring(seed: int, m: int, k: int, n: int) -> None:
    a, b = integers(seed, 40, m, k), integers(seed + 1, 40, k, n)
    for result in (
        run_both(lambda rt, x, y: beaver.multiply(rt, x, y, "matmul"), a, b),
        run_both(lambda rt, x, y: beaver.multiply_by_weight(rt, x, beaver.open_weight_shares(rt, [y])[0]), a, b),
    ):
        assert torch.equal(result.value, a @ b)
        assert result.bytes == 8 * (m * k + k * n)
        assert result.offline == 8 * m * n
    assert torch.equal(run_both(beaver.square, a).value, a * a)
    assert torch.equal(run_both(lambda rt, x, y: beaver.multiply(rt, x, y), a, a[:, :1]).value, a * a[:, :1])


def test_any_product_on_a_device_goes_by_limbs() -> None:
    a, b = integers(0, 62, 3, 4), integers(1, 62, 4, 2)
    expected, ordinary = a @ b, b.double().T @ b.double()
    with LimbMatmulMode(torch.device("cpu")), patch.object(Factor, "multiply_by_limbs", autospec=True) as limbs:
        limbs.return_value = expected
        assert all(torch.equal(product, expected) for product in (a @ b, torch.matmul(a, b), a.matmul(b)))
        assert limbs.call_count == 3
        assert torch.equal(b.double().T @ b.double(), ordinary)
    assert limbs.call_count == 3
    with LimbMatmulMode(torch.device("cpu")):
        assert torch.equal(a @ b, expected)


@pytest.mark.slow
@given(SEEDS, st.integers(16, 21), st.integers(1, 13))
def test_the_basis_is_near_real_cosines_and_sines(seed: int, period: int, harmonics: int) -> None:
    words = integers(seed, 30, 200).int()
    series = FourierSeries(period, fraction_bits=29, basis_bits=14, low=0.0, sines=(1.0,) * harmonics)
    angles = 2 * math.pi / 2**period * words.double()
    cosines, sines = basis(series, words).double().div(2**14).chunk(2)
    for harmonic, (cosine, sine) in enumerate(zip(cosines, sines, strict=True), start=1):
        assert (cosine - torch.cos(harmonic * angles)).abs().max() < 2**-14
        assert (sine - torch.sin(harmonic * angles)).abs().max() < 2**-14


SERIES = [
    (activations.GELU_SERIES, -4.0, 4.0, torch.nn.functional.gelu, 1e-4),
    (activations.SILU_SERIES, -9.0, 9.0, torch.nn.functional.silu, 2e-4),
    (activations.TANH_SERIES, -4.6, 4.6, torch.tanh, 1e-4),
    (activations.ERF_SERIES, -3.0, 3.0, torch.erf, 1e-5),
    (softmax.EXP_SERIES, -11.0, 0.0, torch.exp, 6e-5),
    (rows.RECIPROCAL_SERIES, 1.0, 2.0, torch.reciprocal, 1e-5),
    (rows.INVERSE_ROOT_SERIES, 1.0, 4.0, torch.rsqrt, 1e-5),
]


@pytest.mark.parametrize(("series", "low", "high", "function", "error"), SERIES)
def test_series_have_their_stated_error(
    series: FourierSeries, low: float, high: float, function: Callable[[Tensor], Tensor], error: float
) -> None:
    x = torch.linspace(low, high, 4001, dtype=torch.float64)
    angles = 2 * math.pi / 2 ** (series.period_bits - 16) * x
    result = series.constant + series.slope * x
    result = result + sum(a * torch.cos(j * angles) for j, a in enumerate(series.cosines, start=1))
    result = result + sum(b * torch.sin(j * angles) for j, b in enumerate(series.sines, start=1))
    assert (result - function(x)).abs().max() < error
    assert series.low <= result.min() - 2e-3
    assert result.max() + 2e-3 < series.low + 2 ** (31 - series.fraction_bits)


def test_a_series_without_comparison_is_one_opening() -> None:
    x = ring(torch.linspace(1, 2, 500))
    result = run_both(lambda rt, share: fourier.evaluate(rt, share, rows.RECIPROCAL_SERIES), x)
    assert (reals(result.value) - 1 / reals(x)).abs().max() < 2e-4
    assert (result.rounds, result.bytes) == (2, 8 * len(x))


@pytest.mark.slow
@given(SEEDS, st.integers(2, 9))
def test_reciprocals_of_row_sums(seed: int, most: int) -> None:
    x = 1 + torch.rand(50, generator=torch.Generator().manual_seed(seed)) * (2**most - 1.01)
    result = run_both(lambda rt, share: rows.reciprocal(rt, share, most), ring(x))
    assert (reals(result.value) - 1 / x).abs().max() < 2e-4
    assert result.rounds == 10


def test_reciprocals_of_small_numbers_too() -> None:
    x = ring(torch.logspace(-8, 4, 400, base=2, dtype=torch.float64))
    result = reals(run_both(lambda rt, share: rows.reciprocal(rt, share, 4, -8), x).value)
    torch.testing.assert_close(result, 1 / reals(x), atol=2**-15, rtol=2e-4)


@pytest.mark.slow
@given(SEEDS, st.integers(-4, 13))
def test_inverse_roots_over_the_whole_range(seed: int, power: int) -> None:
    x = 4.0**power * (1 + 3 * torch.rand(50, generator=torch.Generator().manual_seed(seed)))
    result = run_both(lambda rt, share: rows.inverse_root(rt, share, 1.0), ring(x)).value.double() / 2**32
    exact = (ring(x).double() / 2**16).rsqrt()
    assert ((result - exact) / exact).abs().max() < 2e-4


def test_streams_repeat_and_differ() -> None:
    prg, same_seed, other_seed = AesCtrPrg(bytes(16)), AesCtrPrg(bytes(16)), AesCtrPrg(bytes([1] * 16))
    part = TensorSpec((1000,))
    (first,) = prg.draw(part)
    assert torch.equal(first, *same_seed.draw(part))
    assert not torch.equal(first, *prg.draw(part))
    assert not torch.equal(first, *other_seed.draw(part))
    (bits,) = prg.draw(TensorSpec((4000,), 1, torch.uint8))
    assert set(bits.tolist()) == {0, 1}
    assert 1800 < int(bits.sum()) < 2200
