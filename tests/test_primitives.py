"""What kernels of our own are built of, between two threads: values against plain integers, and what they count."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threads import both
from torch import Tensor

from pi_sim.mpc.dealer.correlation import Part
from pi_sim.mpc.dealer.stream import Stream
from pi_sim.mpc.kernels import erf, gelu, silu, softmax, tanh
from pi_sim.mpc.primitives import piecewise, products, rows, series, stationary
from pi_sim.mpc.primitives.function import Function, Piece
from pi_sim.mpc.primitives.indicators import indicators
from pi_sim.mpc.primitives.truncation import truncate
from pi_sim.mpc.primitives.waves import waves

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
    found = both(lambda share: truncate(share, fraction), x)
    assert set((found.value - (x >> fraction)).tolist()) <= {0, 1}
    assert (found.rounds, found.bytes, found.offline) == (1, 8 * len(x), 16 * len(x))


RELU = Function((0.0,), (Piece(), Piece(slope=1.0)))


@given(SEEDS, BITS)
def test_comparison_is_exact(seed: int, bits: int) -> None:
    x = torch.cat([integers(seed, bits, 300), EDGES])
    found = both(lambda share: piecewise.evaluate(share, RELU), x)
    assert torch.equal(found.value, x.clamp(min=0))
    assert (found.rounds, found.bytes) == (4, 8 * len(x) + 3 * 8 * math.ceil(len(x) / 8) + 24 * math.ceil(len(x) / 8))


@given(SEEDS, st.lists(st.integers(-1000, 1000), min_size=1, max_size=5, unique=True))
def test_indicators_tell_the_interval(seed: int, ends: list[int]) -> None:
    thresholds = sorted(ends)
    x = torch.cat([integers(seed, 27, 100), ring(torch.tensor(thresholds))])
    found = both(lambda share: indicators(share, thresholds), x).value
    expected = torch.bucketize(x, ring(torch.tensor(thresholds)), right=True)
    assert torch.equal(found.argmax(0), expected)
    assert torch.equal(found.sum(0), torch.ones_like(x))


@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_products_are_those_of_the_ring(seed: int, m: int, k: int, n: int) -> None:
    a, b = integers(seed, 40, m, k), integers(seed + 1, 40, k, n)
    for found in (
        both(lambda x, y: products.product(x, y, "matmul"), a, b),
        both(lambda x, y: stationary.product(x, stationary.settle([y])[0]), a, b),
    ):
        assert torch.equal(found.value, a @ b)
        assert found.bytes == 8 * (m * k + k * n)
        assert found.offline == 8 * m * n
    assert torch.equal(both(products.square, a).value, a * a)
    assert torch.equal(both(lambda x, y: products.product(x, y), a, a[:, :1]).value, a * a[:, :1])


@given(SEEDS, st.integers(1, 13))
def test_waves_are_those_of_the_reals(seed: int, harmonics: int) -> None:
    words = integers(seed, 62, 200)
    angles = 2 * math.pi * (words % 2**20).double() / 2**20
    for kind, exact in zip(waves(words, 20, harmonics), (torch.cos, torch.sin), strict=True):
        for number, found in enumerate(kind, start=1):
            assert (found.double() / 2**30 - exact(number * angles)).abs().max() < 2e-6


CURVES = [
    (gelu.CURVE, 16, -4.0, 4.0, torch.nn.functional.gelu, 1e-5),
    (silu.CURVE, 32, -9.0, 9.0, torch.nn.functional.silu, 5e-4),
    (tanh.CURVE, 16, -4.6, 4.6, torch.tanh, 1.1e-4),
    (erf.CURVE, 16, -3.0, 3.0, torch.erf, 3e-5),
    (softmax.CURVE, 32, -12.0, 0.0, torch.exp, 5e-5),
    (rows.RECIPROCAL, 4, 1.0, 2.0, torch.reciprocal, 6e-6),
    (rows.INVERSE_ROOT, 8, 1.0, 4.0, torch.rsqrt, 6e-6),
]


@pytest.mark.parametrize(("curve", "period", "low", "high", "function", "error"), CURVES)
def test_series_are_as_right_as_they_say(
    curve: Piece, period: int, low: float, high: float, function: object, error: float
) -> None:
    x = torch.linspace(low, high, 4001, dtype=torch.float64)
    angles = 2 * np.pi / period * x
    found = curve.constant + curve.slope * x
    found = found + sum(a * torch.cos(j * angles) for j, a in enumerate(curve.cosines, start=1))
    found = found + sum(b * torch.sin(j * angles) for j, b in enumerate(curve.sines, start=1))
    assert (found - function(x)).abs().max() < error  # type: ignore[operator]


def test_a_series_without_comparison_is_one_opening() -> None:
    x = ring(torch.linspace(1, 2, 500))
    found = both(lambda share: series.evaluate(share, rows.RECIPROCAL, 18), x)
    assert (reals(found.value) - 1 / reals(x)).abs().max() < 3e-5
    assert (found.rounds, found.bytes) == (2, 16 * len(x))


@given(SEEDS, st.integers(2, 9))
def test_reciprocals_of_row_sums(seed: int, most: int) -> None:
    x = 1 + torch.rand(50, generator=torch.Generator().manual_seed(seed)) * (2**most - 1.01)
    found = both(lambda share: rows.reciprocal(share, most), ring(x))
    assert (reals(found.value) - 1 / x).abs().max() < 5e-5
    assert found.rounds == 10


@given(SEEDS, st.integers(-4, 13))
def test_inverse_roots_over_the_whole_range(seed: int, power: int) -> None:
    x = 4.0**power * (1 + 3 * torch.rand(50, generator=torch.Generator().manual_seed(seed)))
    found = both(lambda share: rows.inverse_root(share, 1.0), ring(x)).value.double() / 2**32
    exact = (ring(x).double() / 2**16).rsqrt()
    assert ((found - exact) / exact).abs().max() < 6e-5


def test_streams_repeat_and_differ() -> None:
    one, again, other = Stream(bytes(16)), Stream(bytes(16)), Stream(bytes([1] * 16))
    part = Part((1000,))
    first = one.draw(part)
    assert torch.equal(first, again.draw(part))
    assert not torch.equal(first, one.draw(part))
    assert not torch.equal(first, other.draw(part))
    bits = one.draw(Part((4000,), 1, torch.uint8))
    assert set(bits.tolist()) == {0, 1}
    assert 1800 < int(bits.sum()) < 2200
