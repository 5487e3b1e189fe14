"""What kernels of our own are built of, between two threads: values against plain integers, and what they count."""

import math
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pi_sim.mpc.dealer.correlation import Part
from pi_sim.mpc.dealer.stream import Stream
from pi_sim.mpc.kernels import erf, gelu, silu, softmax, tanh
from pi_sim.mpc.primitives import comparison, piecewise, products, rows, series, stationary
from pi_sim.mpc.primitives.function import RELU, Curve
from pi_sim.mpc.primitives.indicators import indicators
from pi_sim.mpc.primitives.ring import Products, by_limbs
from pi_sim.mpc.primitives.truncation import lift, truncate
from pi_sim.mpc.primitives.waves import waves
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
    found = run_both(lambda share: truncate(share, fraction), x)
    assert set((found.value - (x >> fraction)).tolist()) <= {0, 1}
    assert (found.rounds, found.bytes, found.offline) == (1, 8 * len(x), 16 * len(x))


def whole(length: int, bits: int) -> int:
    """Bytes of so many pieces of a few bits, filled up to whole words."""
    return 8 * math.ceil(length / (64 // bits))


@given(SEEDS, st.integers(2, 30))
def test_a_half_is_exact(seed: int, bits: int) -> None:
    x = torch.cat([integers(seed, bits, 300), EDGES[EDGES.abs() < 2**31]])
    found = run_both(lambda share: piecewise.evaluate(share, RELU), x)
    assert torch.equal(found.value, x.clamp(min=0))
    assert (found.rounds, found.bytes) == (4, 8 * len(x) + whole(2 * len(x), 8) + whole(len(x), 2) + whole(len(x), 1))


@given(SEEDS, BITS, st.sampled_from([comparison.NARROW, comparison.WIDE]))
def test_comparison_is_exact(seed: int, bits: int, word: torch.dtype) -> None:
    x = torch.cat([integers(seed, bits, 300), EDGES])
    x = x[x.abs() < 2 ** (8 * word.itemsize - 1)]
    found = run_both(lambda share: indicators(share, [0.0], word), x)
    assert torch.equal(found.value, torch.stack([x < 0, x >= 0]).long())


@given(SEEDS, st.integers(1, 29), st.integers(1, 20), st.integers(-100, 100))
def test_a_short_word_is_lifted(seed: int, bits: int, fraction: int, above: int) -> None:
    x, lowest = torch.cat([integers(seed, bits, 301), EDGES[EDGES.abs() < 2**30]]), -(2**30) + (above << fraction)
    x = x + (above << fraction)
    found = run_both(lambda share: lift(share.int(), fraction, lowest), x)
    assert set((found.value - (x >> fraction)).tolist()) <= {0, 1}
    assert (found.rounds, found.bytes, found.offline) == (1, 8 * math.ceil(len(x) / 2), 16 * len(x))


@given(SEEDS, st.lists(st.integers(-1000, 1000), min_size=1, max_size=5, unique=True))
def test_indicators_tell_the_interval(seed: int, ends: list[int]) -> None:
    thresholds = sorted(ends)
    x = torch.cat([integers(seed, 27, 100), ring(torch.tensor(thresholds))])
    found = run_both(lambda share: indicators(share, thresholds), x).value
    expected = torch.bucketize(x, ring(torch.tensor(thresholds)), right=True)
    assert torch.equal(found.argmax(0), expected)
    assert torch.equal(found.sum(0), torch.ones_like(x))


@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_products_are_those_of_the_ring(seed: int, m: int, k: int, n: int) -> None:
    a, b = integers(seed, 40, m, k), integers(seed + 1, 40, k, n)
    for found in (
        run_both(lambda x, y: products.product(x, y, "matmul"), a, b),
        run_both(lambda x, y: stationary.product(x, stationary.settle([y])[0]), a, b),
    ):
        assert torch.equal(found.value, a @ b)
        assert found.bytes == 8 * (m * k + k * n)
        assert found.offline == 8 * m * n
    assert torch.equal(run_both(products.square, a).value, a * a)
    assert torch.equal(run_both(lambda x, y: products.product(x, y), a, a[:, :1]).value, a * a[:, :1])


@pytest.mark.slow
@given(SEEDS, st.integers(1, 4), st.sampled_from([1, 3, 2048, 5000]), st.integers(1, 4))
def test_products_by_limbs_are_the_same_bits(seed: int, m: int, k: int, n: int) -> None:
    a, b = integers(seed, 62, 2, m, k), integers(seed + 1, 62, 2, k, n)
    a[0], b[0, :, 0] = -(2**63), 2**63 - 1
    assert torch.equal(by_limbs(a, b), a @ b)


def test_any_product_on_a_device_goes_by_limbs() -> None:
    a, b = integers(0, 62, 3, 4), integers(1, 62, 4, 2)
    expected, ordinary = a @ b, b.double().T @ b.double()
    with Products(torch.device("cpu")), patch("pi_sim.mpc.primitives.ring.by_limbs", wraps=by_limbs) as used:
        assert all(torch.equal(found, expected) for found in (a @ b, torch.matmul(a, b), a.matmul(b)))
        assert used.call_count == 3
        assert torch.equal(b.double().T @ b.double(), ordinary)
    assert used.call_count == 3


@pytest.mark.slow
@given(SEEDS, st.integers(16, 21), st.integers(1, 13))
def test_waves_are_those_of_the_reals(seed: int, period: int, harmonics: int) -> None:
    words = integers(seed, 30, 200).int()
    curve = Curve(period, fraction=29, wave=14, low=0.0, sines=(1.0,) * harmonics)
    angles = 2 * math.pi / 2**period * words.double()
    cosines, sines = waves(curve, words).double().div(2**14).chunk(2)
    for number, (cosine, sine) in enumerate(zip(cosines, sines, strict=True), start=1):
        assert (cosine - torch.cos(number * angles)).abs().max() < 2**-14
        assert (sine - torch.sin(number * angles)).abs().max() < 2**-14


CURVES = [
    (gelu.CURVE, -4.0, 4.0, torch.nn.functional.gelu, 1e-4),
    (silu.CURVE, -9.0, 9.0, torch.nn.functional.silu, 2e-4),
    (tanh.CURVE, -4.6, 4.6, torch.tanh, 1e-4),
    (erf.CURVE, -3.0, 3.0, torch.erf, 1e-5),
    (softmax.CURVE, -11.0, 0.0, torch.exp, 6e-5),
    (rows.RECIPROCAL, 1.0, 2.0, torch.reciprocal, 1e-5),
    (rows.INVERSE_ROOT, 1.0, 4.0, torch.rsqrt, 1e-5),
]


@pytest.mark.parametrize(("curve", "low", "high", "function", "error"), CURVES)
def test_series_are_as_right_as_they_say(
    curve: Curve, low: float, high: float, function: Callable[[Tensor], Tensor], error: float
) -> None:
    x = torch.linspace(low, high, 4001, dtype=torch.float64)
    angles = 2 * math.pi / 2 ** (curve.period - 16) * x
    found = curve.constant + curve.slope * x
    found = found + sum(a * torch.cos(j * angles) for j, a in enumerate(curve.cosines, start=1))
    found = found + sum(b * torch.sin(j * angles) for j, b in enumerate(curve.sines, start=1))
    assert (found - function(x)).abs().max() < error
    assert curve.low <= found.min() - 2e-3
    assert found.max() + 2e-3 < curve.low + 2 ** (31 - curve.fraction)


def test_a_series_without_comparison_is_one_opening() -> None:
    x = ring(torch.linspace(1, 2, 500))
    found = run_both(lambda share: series.evaluate(share, rows.RECIPROCAL), x)
    assert (reals(found.value) - 1 / reals(x)).abs().max() < 2e-4
    assert (found.rounds, found.bytes) == (2, 8 * len(x))


@pytest.mark.slow
@given(SEEDS, st.integers(2, 9))
def test_reciprocals_of_row_sums(seed: int, most: int) -> None:
    x = 1 + torch.rand(50, generator=torch.Generator().manual_seed(seed)) * (2**most - 1.01)
    found = run_both(lambda share: rows.reciprocal(share, most), ring(x))
    assert (reals(found.value) - 1 / x).abs().max() < 2e-4
    assert found.rounds == 10


def test_reciprocals_of_small_numbers_too() -> None:
    x = ring(torch.logspace(-8, 4, 400, base=2, dtype=torch.float64))
    found = reals(run_both(lambda share: rows.reciprocal(share, 4, -8), x).value)
    torch.testing.assert_close(found, 1 / reals(x), atol=2**-15, rtol=2e-4)


@pytest.mark.slow
@given(SEEDS, st.integers(-4, 13))
def test_inverse_roots_over_the_whole_range(seed: int, power: int) -> None:
    x = 4.0**power * (1 + 3 * torch.rand(50, generator=torch.Generator().manual_seed(seed)))
    found = run_both(lambda share: rows.inverse_root(share, 1.0), ring(x)).value.double() / 2**32
    exact = (ring(x).double() / 2**16).rsqrt()
    assert ((found - exact) / exact).abs().max() < 2e-4


def test_streams_repeat_and_differ() -> None:
    one, again, other = Stream(bytes(16)), Stream(bytes(16)), Stream(bytes([1] * 16))
    part = Part((1000,))
    (first,) = one.draw(part)
    assert torch.equal(first, *again.draw(part))
    assert not torch.equal(first, *one.draw(part))
    assert not torch.equal(first, *other.draw(part))
    (bits,) = one.draw(Part((4000,), 1, torch.uint8))
    assert set(bits.tolist()) == {0, 1}
    assert 1800 < int(bits.sum()) < 2200
