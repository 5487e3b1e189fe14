"""The figures of one diagnosis."""

from collections.abc import Callable, Iterator
from functools import partial

from matplotlib.figure import Figure

from pi_sim.records import Record
from pi_sim.reporting.figures import entropy, histogram, learned, ranges, sparsity

Drawn = tuple[str, Callable[[], Figure]]


def draw(record: Record) -> Iterator[Drawn]:
    """(name, a function that draws it) of every figure that the record has the data for."""
    yield "entropy", partial(entropy.heat_maps, [(record["model"], record["entropy_share"])])
    yield "sparsity", partial(sparsity.by_layer, record)
    if record["histograms"]:
        yield "pre-activations", partial(histogram.by_layer, record)
    if ranges.lines(record):
        yield "ranges", partial(ranges.by_layer, record)
    if record.get("alphas"):
        yield "alphas", partial(learned.alphas, record)
    if record.get("slopes"):
        yield "slopes", partial(learned.slopes, record)
