"""Matrix products of integers by limbs are those of integers, bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_sim.mpc.primitives import ring
from pi_sim.mpc.primitives.ring import Factor, LimbPlan

WORDS = st.sampled_from([-(2**63), -(2**47), -1, 0, 1, 2**21, 2**62 + 12345, 2**63 - 1])


def random_words(seed: int, *shape: int, magnitude_bits: int = 63) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**magnitude_bits), 2**magnitude_bits - 1, shape, generator=generator)


@settings(max_examples=40)
@given(
    batch=st.integers(1, 3), m=st.integers(1, 9), k=st.sampled_from([1, 2, 7, 768, 2048, 2049, 5000]),
    n=st.integers(1, 5), magnitude=st.sampled_from([1, 8, 18, 20, 31, 47, 63]), extreme=WORDS, seed=st.integers(0, 99),
)  # fmt: skip
@pytest.mark.parametrize("bits", [64, 48, 32])
def test_limbs_give_the_bits_of_the_integer_product(
    bits: int, batch: int, m: int, k: int, n: int, magnitude: int, extreme: int, seed: int
) -> None:
    a, b = random_words(seed, batch, m, k), random_words(seed + 1, batch, k, n, magnitude_bits=magnitude)
    a[..., 0] = extreme
    b[..., 0, :] = -(2**magnitude)
    difference = Factor(b).multiply_by_limbs(a, bits) - a @ b
    assert not (difference << (64 - bits)).any()


def test_a_small_weight_takes_three_products_and_two_modulo_2_to_the_48() -> None:
    assert len(LimbPlan.of(64, 19, 768).pairs) == 3
    assert len(LimbPlan.of(48, 19, 768).pairs) == 2
    assert len(LimbPlan.of(64, 63, 768).pairs) == 6


@pytest.mark.parametrize(("slowness", "rows", "expected"), [(1.5, 64, False), (16.0, 64, True), (16.0, 1, False)])
def test_limbs_are_taken_where_integers_are_slow(
    monkeypatch: pytest.MonkeyPatch, slowness: float, rows: int, expected: bool
) -> None:
    monkeypatch.setattr(ring, "integer_slowness", lambda: slowness)
    a, b = random_words(1, rows, 96), random_words(2, 96, 40, magnitude_bits=18)
    factor = Factor(b)
    assert torch.equal(factor.multiply(a), a @ b)
    assert bool(factor._limbs) is expected


def test_the_speed_of_this_machine_is_measured_once() -> None:
    assert ring.integer_slowness() == ring.integer_slowness() > 0
