"""Ranges of the values that a model computes, by operation and quantity: public bounds that travel with a bundle."""

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Self

SIGNIFICANT_DIGITS = 3
"""Digits of a published bound."""


@dataclass(frozen=True)
class ValueRange:
    """Smallest and largest value of a quantity, such as "|input|", in all operations of one name."""

    op: str
    quantity: str
    low: float
    high: float

    def join(self, other: "ValueRange | None") -> Self:
        """Return the range of both."""
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high)) if other else self

    def published(self) -> Self:
        """Return the range widened to bounds of 3 significant digits."""
        return replace(self, low=_round(self.low, ROUND_FLOOR), high=_round(self.high, ROUND_CEILING))


def _round(value: float, direction: str) -> float:
    return float(Context(SIGNIFICANT_DIGITS, direction).create_decimal(value))
