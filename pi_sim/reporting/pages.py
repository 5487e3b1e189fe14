"""What generated pages have in common: their first line, their sections, and their figures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from pi_sim.files import write_text
from pi_sim.reporting.figures.style import svg

MADE = "<!-- Made by `pi-sim report` from records: change those, not this page. -->"
Drawing = tuple[str, Callable[[], Figure]]
"""The words below a figure, the first sentence of which stands for it, and how it is drawn."""


def write(place: Path, text: str, figures: Mapping[str, Drawing]) -> list[Path]:
    """Write a page and, in a folder beside it, its figures; what was written, the page last."""
    written = [place.parent / "figures" / f"{name}.svg" for name in figures]
    for path, (_, draw) in zip(written, figures.values(), strict=True):
        write_text(path, svg(draw))
    write_text(place, text)
    return [*written, place]


def filled(sections: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every heading with its contents, without those that there is nothing for."""
    for heading, contents in sections.items():
        found = [content for content in contents if content]
        yield from [heading, *found] if found else []


def figure(name: str, figures: Mapping[str, Drawing]) -> str:
    """A figure in the page, if it is drawn."""
    return embedded(name, figures[name][0]) if name in figures else ""


def embedded(name: str, caption: str) -> str:
    """A figure's file in the page, and its caption below."""
    return f"![{caption.split('.')[0]}](figures/{name}.svg)\n\n*{caption}*"
