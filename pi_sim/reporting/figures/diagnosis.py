"""The figures of one diagnosis."""

import textwrap
from collections.abc import Callable, Iterator
from functools import partial

from matplotlib.figure import Figure

from pi_sim.records import JsonObject
from pi_sim.reporting.figures import entropy, histogram, learned, ranges, sparsity

Drawn = tuple[str, Callable[[], Figure]]
LETTERS = 15
"""Of a caption, in an inch."""


def draw(record: JsonObject) -> Iterator[Drawn]:
    """(name, a function that draws it, its caption below) of every figure that the record has the data for."""
    for name, caption, figure in _figures(record):
        yield name, partial(_captioned, caption, figure)


def _figures(record: JsonObject) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
    shares = [(record["model"], record["entropy_share"])]
    yield "entropy", entropy.CAPTION, partial(entropy.heat_maps, shares)
    yield "sparsity", sparsity.CAPTION, partial(sparsity.by_layer, record)
    if record["histograms"]:
        yield "pre-activations", histogram.CAPTION, partial(histogram.by_layer, record)
    if ranges.lines(record):
        yield "ranges", ranges.CAPTION, partial(ranges.by_layer, record)
    if record.get("alphas"):
        yield "alphas", learned.ALPHAS, partial(learned.alphas, record)
    if record.get("slopes"):
        yield "slopes", learned.SLOPES, partial(learned.slopes, record)


def _captioned(caption: str, draw: Callable[[], Figure]) -> Figure:
    """A figure that stands alone, on no page that would say what it shows."""
    figure = draw()
    figure.supxlabel(textwrap.fill(caption, int(LETTERS * figure.get_figwidth())), fontsize=8)
    return figure
