"""Numbers for people: one unit for all that is compared by eye."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """How numbers are written, where the largest of them is at least `start`."""

    start: float
    name: str
    divisor: float
    decimals: int

    def show(self, value: float) -> str:
        """The number in this unit; what would round to nothing is shown as less than the last decimal."""
        scaled, smallest = value / self.divisor, 10.0**-self.decimals
        if scaled and abs(scaled) < smallest / 2:
            return f"<{smallest:.{self.decimals}f}"
        return f"{scaled:,.{self.decimals}f}"


Units = tuple[Unit, ...]

TEXT: Units = ()
COUNT: Units = (Unit(0, "", 1, 0),)
RATIO: Units = (Unit(0, "", 1, 2),)
SHARE: Units = (Unit(0, "%", 0.01, 1),)
BYTES: Units = (Unit(1e10, "GB", 1e9, 2), Unit(1e6, "MB", 1e6, 2), Unit(1e3, "kB", 1e3, 2), Unit(0, "B", 1, 0))
SECONDS: Units = (Unit(1e3, "s", 1, 1), Unit(1e2, "s", 1, 2), Unit(1, "s", 1, 3), Unit(0, "ms", 1e-3, 1))


def fitting(units: Units, values: list[float]) -> Unit:
    """The unit, among those listed from large to small, that suits the largest of some values."""
    largest = max(values, default=0)
    return next((unit for unit in units if largest >= unit.start), units[-1])


def quantity(value: float, units: Units) -> str:
    """A number with its unit, to three digits: for running text."""
    unit = fitting(units, [value])
    scaled = value / unit.divisor
    return f"{scaled:,.0f} {unit.name}" if scaled >= 1000 else f"{scaled:.3g} {unit.name}"


def perplexity(value: float | None) -> str:
    """A perplexity, which a broken model can carry beyond all numbers."""
    if value is None or math.isinf(value):
        return "beyond all numbers"
    if math.isnan(value):
        return "not a number"
    return f"{value:.2f}" if value < 10_000 else f"{value:.1e}"


def change(value: float, reference: float) -> str:
    """A relative change against a reference, with its sign."""
    if not math.isfinite(value) or not math.isfinite(reference):
        return "–"
    return f"{value / reference - 1:+.1%}"
