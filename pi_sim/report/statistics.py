"""Statistics: what the seeds of trainings can decide, Pareto fronts, and smoothed curves."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pi_sim.report.tables import format_change, format_perplexity

Curve = dict[int, float]  # a loss by step
SIMILAR, FAR = 2, 4
"""Two changes are of similar size up to a factor of 2; from a factor of 4 on, one is far larger or smaller."""
START, WINDOW = 10, 20
"""The start of a curve is its first tenth, the window of a running mean a twentieth."""


@dataclass(frozen=True)
class Seeds:
    """Perplexities of trainings that differ in the seed alone, at least one; a diverged one is worse than any other."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> "Seeds":
        """Build from perplexities, of which NaN stands for a training that diverged."""
        return cls(tuple(math.inf if math.isnan(value) else value for value in values))

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def range(self) -> str:
        """The least and the largest, as text."""
        if len(self.values) == 1:
            return "one seed"
        return f"{format_perplexity(min(self.values))} to {format_perplexity(max(self.values))}"

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, self.values))

    def change(self, reference: "Seeds") -> str:
        return format_change(self.mean, reference.mean)

    def summary(self, reference: "Seeds | None" = None) -> dict[str, Any]:
        """Return the cells of a table: the number of seeds, mean, range, and the change if there is a reference."""
        change = "" if reference is None else self.change(reference)
        return {"seeds": len(self.values), "mean": self.mean, "range": self.range, "change": change}

    def is_repeated(self, other: "Seeds") -> bool:
        """Return True if there are at least two seeds on both sides."""
        return min(len(self.values), len(other.values)) > 1

    def is_apart(self, other: "Seeds") -> bool:
        """Return True if every seed of one is ahead of every seed of the other."""
        return max(self.values) < min(other.values) or max(other.values) < min(self.values)

    def chance(self, other: "Seeds") -> str:
        """Return how often ranges of two equal designs lie apart: two of all ways to mix their seeds in one order."""
        return f"2 of {math.comb(len(self.values) + len(other.values), len(self.values))}"


def compare_ranges(first: Seeds, second: Seeds) -> str:
    """Describe how the ranges of two designs lie."""
    if not first.is_repeated(second):
        return "not repeated"
    return f"apart; by chance in {first.chance(second)}" if first.is_apart(second) else "overlap"


def order_verdict(better: Seeds, worse: Seeds) -> str:
    """Return whether trainings confirm a published order, as far as their seeds can tell."""
    if not better.is_repeated(worse) or not better.is_apart(worse):
        return "not decided by these trainings"
    return "as published" if better.mean < worse.mean else "unlike the published order"


def claim_verdict(better: Seeds, worse: Seeds, published: float) -> str:
    """Compare our change of the perplexity with the published one, by its size and by what the seeds can decide."""
    gap, ranges = abs(worse.mean - better.mean), [max(seeds.values) - min(seeds.values) for seeds in (better, worse)]
    if not better.is_apart(worse) or gap <= max(ranges):
        evidence = "within the spread of the seeds"
    elif not better.is_repeated(worse):
        evidence = "one seed"
    else:
        evidence = f"ranges apart, by chance in {better.chance(worse)}"
    return f"{compare_sizes(worse.mean / better.mean - 1, published)}; {evidence}"


def compare_sizes(change: float, published: float) -> str:
    """Compare two relative changes by sign and size; NaN, where both designs diverged, cannot be compared."""
    if math.isnan(change):
        return "not comparable"
    if change * published <= 0:
        return "opposite sign"
    factor = max(change / published, published / change)
    if factor <= SIMILAR:
        return "similar size"
    return f"same sign, {'far ' if factor >= FAR else ''}{'larger' if abs(change) > abs(published) else 'smaller'}"


def pareto_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Return the points that no other is as low as in both numbers and lower in one, ordered by the first number."""

    def is_beaten(x: float, y: float) -> bool:
        return any((a, b) != (x, y) and a <= x and b <= y for a, b in points.values())

    return sorted((name for name in points if not is_beaten(*points[name])), key=lambda name: (points[name], name))


def smooth_excess(curve: Curve, baseline: Curve) -> Curve:
    """Smooth the excess over a baseline without its start; each mean stands at its window's middle."""
    shared = [step for step in curve if step in baseline]
    steps = shared[len(shared) // START :]
    window = max(1, len(steps) // WINDOW)
    windows = [steps[start : start + window] for start in range(len(steps) - window + 1)]
    return {part[window // 2]: fmean(curve[step] - baseline[step] for step in part) for part in windows}
