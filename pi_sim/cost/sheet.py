"""Declared prices: what a source says that an operation costs, from a protocol's sheet."""

from pi_sim.cost.cost import ZERO, Cost
from pi_sim.cost.features import features
from pi_sim.errors import UnpricedError, UsageError
from pi_sim.graph.ops import STRUCTURAL, Op
from pi_sim.specs import Price, Sheet
from pi_sim.specs.protocols import UNITS, Terms


def price(op: Op, sheet: Sheet) -> Cost:
    """What the sheet says of an operation; an `UnpricedError` refuses one that it says nothing of."""
    if op.name in sheet.local or op.name in STRUCTURAL:
        return ZERO
    if op.name not in sheet.price:
        raise UnpricedError(
            f"protocol {sheet.name} has no price for {op.name}; add [price.{op.name}] with its source to its sheet."
        )
    entry = sheet.price[op.name]
    known = features(op)
    share = UNITS[entry.unit] * per_party(sheet)
    sums = [_sum(entry, terms, known, op) for terms in (entry.rounds, entry.bytes, entry.offline)]
    return Cost(round(sums[0]), round(sums[1] * share), round(sums[2] * share))


def per_party(sheet: Sheet) -> float:
    """The part of the source's bytes that one party sends, where all send alike."""
    return {"one party": 1.0, "both parties": 1 / 2, "all parties": 1 / sheet.parties}[sheet.counted]


def _sum(entry: Price, terms: Terms, known: dict[str, float], op: Op) -> float:
    """Coefficients times features; a figure that was measured at one size is divided by that size first."""
    missing = sorted(set(terms) - set(known))
    if missing:
        raise UsageError(f"the price of {op.name} is per {missing[0]}, which only products have; mend the sheet.")
    return sum(value * known[name] / entry.at.get(name, 1.0) for name, value in terms.items())
