"""Seeds: the perplexities of trainings that differ in the seed alone, and what they can decide."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pi_sim.reporting.units import perplexity


@dataclass(frozen=True)
class Seeds:
    """At least one perplexity; that of a training that diverged is behind every other."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> "Seeds":
        return cls(tuple(math.inf if math.isnan(value) else value for value in values))

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def range(self) -> str:
        """The least and the largest."""
        if len(self.values) == 1:
            return "one seed"
        return f"{perplexity(min(self.values))} to {perplexity(max(self.values))}"

    def repeated(self, other: "Seeds") -> bool:
        """Whether there is a range on both sides."""
        return min(len(self.values), len(other.values)) > 1

    def apart(self, other: "Seeds") -> bool:
        """Whether every seed of one is ahead of every seed of the other."""
        return max(self.values) < min(other.values) or max(other.values) < min(self.values)

    def chance(self, other: "Seeds") -> str:
        """How often the ranges of two equal designs lie apart: two of all ways to mix their seeds in one order."""
        return f"2 of {math.comb(len(self.values) + len(other.values), len(self.values))}"
