"""Progress on standard error: a bar on a terminal, a few plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress

LINES = 5
"""Lines of a run without a terminal."""


@contextmanager
def bar(title: str) -> Iterator[Callable[[float], None]]:
    """Yield a function that shows the completed fraction."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title)
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)


def _lines(title: str) -> Callable[[float], None]:
    printed = 0

    def advance(fraction: float) -> None:
        nonlocal printed
        if fraction * LINES >= printed + 1:
            printed = int(fraction * LINES)
            click.echo(f"{title}: {fraction:.0%}", err=True)

    return advance
