"""The Pareto front of quality against seconds: designs that no other beats in both."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from pi_sim.reporting.seeds import Seeds
from pi_sim.reporting.trained import Quality
from pi_sim.sweep.answers import Answer

Point = tuple[float, float]


def front(points: dict[str, Point]) -> list[str]:
    """The points that no other is as low as in both numbers and lower in one, ordered by the first number."""
    kept = [name for name, point in points.items() if not any(_beats(other, point) for other in points.values())]
    return sorted(kept, key=lambda name: (points[name], name))


def _beats(other: Point, point: Point) -> bool:
    return other != point and other[0] <= point[0] and other[1] <= point[1]


@dataclass(frozen=True)
class Comparison:
    """Designs that were trained alike, with the answers to one question under one protocol."""

    quality: Quality
    answers: list[Answer]

    @property
    def subject(self) -> Answer:
        """Any of the answers: what was asked is the same in all."""
        return self.answers[0]

    @cached_property
    def designs(self) -> dict[str, Seeds]:
        """Perplexities of the designs, the best first."""
        found = {each.model: self.quality.perplexities[each.model] for each in self.answers}
        return dict(sorted(found.items(), key=lambda item: item[1].mean))

    @cached_property
    def networks(self) -> dict[str, dict[str, float]]:
        """Seconds of each design by network."""
        found: dict[str, dict[str, float]] = {}
        for each in self.answers:
            found.setdefault(each.network, {})[each.model] = each.seconds or 0.0
        return found

    def front(self, network: str) -> list[str]:
        """The designs on the front, the fastest first."""
        seconds = self.networks[network]
        return front({model: (seconds[model], self.designs[model].mean) for model in seconds})


def comparisons(answers: Iterable[Answer], qualities: list[Quality]) -> Iterator[Comparison]:
    """Every comparison of at least two designs that have a price and a perplexity."""
    priced = [each for each in answers if each.seconds is not None]
    for quality in qualities:
        alike: dict[tuple[object, ...], list[Answer]] = {}
        for each in priced:
            seeds = quality.perplexities.get(each.model) if each.size == quality.size else None
            if seeds and math.isfinite(seeds.mean):
                alike.setdefault((*each[1:6], each.protocol), []).append(each)
        found = (Comparison(quality, group) for group in alike.values())
        yield from (each for each in found if len(each.designs) > 1)
