"""The targets that `lean` was made for, each beside what was found."""

from collections.abc import Iterator
from dataclasses import dataclass

from pi_sim.records import ModelTiming
from pi_sim.reporting.kernels.exactness import drift, missing
from pi_sim.reporting.kernels.findings import OURS, Kernels
from pi_sim.reporting.tables import Column, Table

ELEMENTS = {"relu": (14, 6), "gelu": (60, 10), "softmax": (100, 60), "tanh": (30, 7)}
"""At most so many bytes an element and rounds."""
BLOCK = "block"
FEWER, SHORTER, FASTER = 8.0, 1.5, 4.0
"""At least so many times less than stock CrypTen: a block's bytes and rounds, any model's seconds."""
PRODUCTS, SEQUENCES = 10**8, 100
DRIFT, TOP1 = 0.001, 0.99
COLUMNS = [
    Column("subject", "subject"),
    Column("target", "target"),
    Column("found", "found"),
    Column("verdict", "verdict"),
]


@dataclass(frozen=True)
class Target:
    """What was aimed at and what was found, in words; `met` is None where nothing was measured."""

    subject: str
    aim: str
    found: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "missed", None: "not measured"}[self.met]


def table(kernels: Kernels) -> Table:
    """All that something was measured for."""
    return Table(COLUMNS, [[each.subject, each.aim, each.found, each.verdict] for each in targets(kernels)])


def targets(kernels: Kernels) -> Iterator[Target]:
    """In the order of the page."""
    yield from _elements(kernels)
    yield from _models(kernels)
    yield from _truncations(kernels)
    yield from _accuracy(kernels)


def _elements(kernels: Kernels) -> Iterator[Target]:
    by_name = {ours.name: (stock, ours) for stock, ours in kernels.pairs}
    for name, (most, rounds) in ELEMENTS.items():
        if name in by_name:
            stock, ours = by_name[name]
            each, usual = ours.bytes / ours.elements, stock.bytes / stock.elements
            found = f"{each:,.1f} bytes and {ours.rounds} rounds; stock {usual:,.1f} and {stock.rounds}"
            met = each <= most and ours.rounds <= rounds
            yield Target(name, f"at most {most} bytes an element and {rounds} rounds", found, met)


def _models(kernels: Kernels) -> Iterator[Target]:
    for ran in kernels.bench.models:
        stock = kernels.stock(ran)
        if ran.protocol == OURS and stock:
            yield from _beside(ran, stock)


def _beside(ran: ModelTiming, stock: ModelTiming) -> Iterator[Target]:
    """A block's counts do not depend on the dealer, everybody's seconds do."""
    if BLOCK in ran.model and ran.dealer == "first-party":
        fewer, shorter = stock.bytes / ran.bytes, stock.rounds / ran.rounds
        yield Target(ran.model, f"{FEWER:g} times fewer bytes", f"{fewer:.1f} times", fewer >= FEWER)
        yield Target(ran.model, f"{SHORTER:g} times fewer rounds", f"{shorter:.2f} times", shorter >= SHORTER)
    faster = stock.seconds / ran.seconds
    yield Target(
        f"{ran.model}, dealer {ran.dealer}", f"{FASTER:g} times faster", f"{faster:.1f} times", faster >= FASTER
    )


def _truncations(kernels: Kernels) -> Iterator[Target]:
    for each in kernels.bench.truncations:
        if each.protocol == OURS:
            subject = f"products of factors up to {each.bound}"
            found = f"{each.wrong:,} of {each.number:,}"
            yield Target(subject, f"none of {PRODUCTS:,} wrong", found, not each.wrong and each.number >= PRODUCTS)


def _accuracy(kernels: Kernels) -> Iterator[Target]:
    """Of every shipped model."""
    aim = f"perplexity within {DRIFT:.1%}, likeliest token above {TOP1:.0%}, nothing destroyed in {SEQUENCES} sequences"
    for model, run in sorted(kernels.runs.items()):
        change, top1, sequences = drift(run), run.record["agreement"]["top1"], run.record["sequences"]
        exact = change is not None and abs(change) <= DRIFT and top1 > TOP1
        told = "beyond all numbers" if change is None else f"{change:+.3%}"
        found = f"{told}, {top1:.2%}, {run.destroyed} in {sequences}"
        yield Target(model, aim, found, exact and not run.destroyed and sequences >= SEQUENCES)
    for model in missing(kernels):
        yield Target(model, aim, "", None)
