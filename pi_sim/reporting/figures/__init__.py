"""Figures: SVG drawn from findings; the same findings give the same bytes."""

from collections.abc import Iterator
from dataclasses import dataclass

from pi_sim.reporting.figures import costs, loss, tradeoff
from pi_sim.reporting.figures.style import svg
from pi_sim.reporting.findings import Findings


@dataclass(frozen=True)
class Drawing:
    """A figure and the words below it, the first sentence of which stands for it."""

    name: str
    caption: str
    svg: str


def draw(findings: Findings) -> Iterator[Drawing]:
    """Every figure that the findings have the data for."""
    yield Drawing("operations", costs.CAPTION, svg(lambda: costs.by_operation(findings)))
    if tradeoff.points(findings):
        yield Drawing("tradeoff", tradeoff.caption(findings), svg(lambda: tradeoff.tradeoff(findings)))
    if loss.curves(findings):
        yield Drawing("loss", loss.CAPTION, svg(lambda: loss.loss_curves(findings)))
