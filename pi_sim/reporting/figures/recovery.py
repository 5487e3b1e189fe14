"""Recovery: how a converted model's perplexity comes back while it is fine-tuned."""

from dataclasses import dataclass
from itertools import cycle

from matplotlib.figure import Figure

from pi_sim.reporting.figures.style import panels

CAPTION = (
    "Held-out perplexity of converted models along fine-tuning, from right after surgery; dashed: the model that was "
    "converted."
)
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MILLION = 1e6


@dataclass(frozen=True)
class Recovery:
    """A conversion: perplexity before it, and at some points of fine-tuning; the first, at 0 tokens, may be missing."""

    label: str
    before: float
    tokens: list[int]
    perplexities: list[float]


def recoveries(conversions: list[Recovery]) -> Figure:
    """One line for each conversion; each source's own perplexity once."""
    figure, (panel,) = panels(1, height=3.0)
    for color, each in zip(cycle(COLORS), conversions, strict=False):
        panel.plot([tokens / MILLION for tokens in each.tokens], each.perplexities, color=color, label=each.label)
        if each.tokens and each.tokens[0] == 0:
            panel.plot(0, each.perplexities[0], "o", color=color, markersize=4)
    for before in {each.before for each in conversions}:
        panel.axhline(before, color="#888888", linestyle="--", linewidth=0.9)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_minor_formatter("{x:,.0f}")
    panel.set_xlabel("tokens of fine-tuning, millions")
    panel.set_ylabel("held-out perplexity")
    panel.grid(True, which="both")
    figure.legend(loc="outside right center")
    return figure
