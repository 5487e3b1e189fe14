"""Statistics: what seeds decide, Pareto fronts, smoothed curves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_sim.report.statistics import (
    Seeds,
    claim_verdict,
    compare_ranges,
    compare_sizes,
    order_verdict,
    pareto_front,
    smooth_excess,
)

ALTERNATING = {step: float(step % 2) for step in range(100)}


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        ((27.3, 27.4), (27.5, 27.6), "as published"),
        ((27.5, 27.6), (27.3, 27.4), "unlike the published order"),
        ((27.3, 27.5), (27.4, 27.6), "not decided by these trainings"),
        ((27.3,), (30.0, 30.1), "not decided by these trainings"),
        ((27.3, 27.4), (30.0,), "not decided by these trainings"),
        ((math.nan, math.nan), (math.inf, math.inf), "not decided by these trainings"),
        ((27.3, 27.4), (math.nan, math.nan), "as published"),
    ],
)
def test_a_verdict_says_no_more_than_the_seeds(better: tuple[float], worse: tuple[float], verdict: str) -> None:
    assert order_verdict(Seeds.of(better), Seeds.of(worse)) == verdict


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        ((1.0, 1.1), (1.2, 1.3), "similar size; ranges apart, by chance in 2 of 6"),
        ((1.2, 1.3), (1.0, 1.1), "opposite sign; ranges apart, by chance in 2 of 6"),
        ((1.0, 1.2), (1.1, 1.3), "same sign, smaller; within the spread of the seeds"),
        ((1.0, 1.2), (1.21, 1.22), "similar size; within the spread of the seeds"),
        ((1.0,), (1.9, 2.0), "same sign, far larger; one seed"),
        ((1.0, 1.1), (math.nan, math.nan), "same sign, far larger; ranges apart, by chance in 2 of 6"),
    ],
)
def test_a_claim_is_judged_by_its_size_and_its_seeds(better: tuple[float], worse: tuple[float], verdict: str) -> None:
    assert claim_verdict(Seeds.of(better), Seeds.of(worse), 0.2) == verdict


@pytest.mark.parametrize(
    ("here", "published", "verdict"),
    [
        (0.549, 0.03, "same sign, far larger"),
        (0.002, 0.084, "same sign, far smaller"),
        (0.206, 0.092, "same sign, larger"),
        (0.101, 0.256, "same sign, smaller"),
        (-0.02, -0.09, "same sign, far smaller"),
        (0.069, 0.089, "similar size"),
        (0.2, 0.1, "similar size"),
        (-0.053, 0.025, "opposite sign"),
        (0.0, 0.025, "opposite sign"),
        (math.nan, 0.025, "not comparable"),
    ],
)
def test_sizes_of_changes_are_compared(here: float, published: float, verdict: str) -> None:
    assert compare_sizes(here, published) == verdict


def test_ranges_may_lie_apart_by_chance() -> None:
    """Of the six orders of two seeds and two, two keep them apart."""
    assert Seeds.of([1, 2]).chance(Seeds.of([3, 4])) == "2 of 6"
    assert compare_ranges(Seeds.of([1, 2]), Seeds.of([3, 4])) == "apart; by chance in 2 of 6"
    assert compare_ranges(Seeds.of([1, 3]), Seeds.of([2, 4])) == "overlap"
    assert compare_ranges(Seeds.of([1]), Seeds.of([2, 4])) == "not repeated"


def test_a_summary_is_that_of_a_tables_row() -> None:
    row = Seeds.of([20.0, 22.0]).summary(Seeds.of([20.0]))
    assert row == {"seeds": 2, "mean": 21.0, "range": "20.00 to 22.00", "change": "+5.0%"}
    assert Seeds.of([math.nan]).summary(Seeds.of([20.0])) == {
        "seeds": 1, "mean": math.inf, "range": "one seed", "change": "–",
    }  # fmt: skip


def test_the_front_of_a_table_made_by_hand() -> None:
    points = {
        "slow and good": (9.0, 1.0),
        "fast and bad": (1.0, 9.0),
        "between": (5.0, 5.0),
        "between, again": (5.0, 5.0),
        "as slow, worse": (5.0, 6.0),
        "as good, slower": (6.0, 5.0),
        "beaten by all": (10.0, 10.0),
    }
    assert pareto_front(points) == ["fast and bad", "between", "between, again", "slow and good"]


@given(points=st.dictionaries(st.text(), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_whatever_is_not_on_the_front_is_beaten_by_what_is(points: dict[str, tuple[float, float]]) -> None:
    front = pareto_front(points)
    beaten = {name for name, point in points.items() if any(_is_better(points[best], point) for best in front)}
    assert beaten == set(points) - set(front)


def _is_better(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return first[0] <= second[0] and first[1] <= second[1] and first != second


def test_an_excess_is_smoothed_and_its_start_left_out() -> None:
    level = dict.fromkeys(ALTERNATING, 1.0)
    smooth = smooth_excess(ALTERNATING, level)
    assert min(smooth) == 12
    assert set(smooth_excess({step: float(step % 2) for step in range(50)}, level).values()) == {-0.5}


def test_an_excess_has_the_steps_that_both_have() -> None:
    assert smooth_excess({10: 3.0, 20: 2.0}, {20: 1.5, 30: 1.0}) == {20: 0.5}
