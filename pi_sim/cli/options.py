"""Parts that commands share: options, and the progress on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from pi_sim.resolution import DEFAULT_MODEL, DEFAULT_NETWORKS

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
POSITIVE = click.IntRange(1)

MODEL = click.option(
    "--model", metavar="MODEL", default=DEFAULT_MODEL, show_default=True,
    help="A card or a public model such as bert-base, or the path of a card, a config or a checkpoint.",
)  # fmt: skip
SIZE = click.option("--size", default="tiny", show_default=True, help="A size's name or path.")
PROTOCOL_HELP = "A protocol's name, or a .toml file."
NETWORK_HELP = "A network's name, or a link such as rtt=40ms,bw=200Mbps."
STYLE = click.option(
    "--format", "style", type=click.Choice(["table", "json", "csv", "markdown"]), default="table", show_default=True,
    help="Format of standard output.",
)  # fmt: skip
LENGTH = click.option("--seq-len", type=POSITIVE, help="Tokens; by default the model's context.")
BATCH = click.option("--batch", default=1, show_default=True, type=POSITIVE, help="Sequences at once.")
PAST = click.option(
    "--past", type=POSITIVE, metavar="N", help="One decode step with a KV cache of N tokens, not a prefill."
)
PROMPT_LENGTH = click.option(
    "--prompt-len", type=POSITIVE, metavar="P", help="Tokens of a prompt, with --generate.",
)  # fmt: skip
GENERATE = click.option(
    "--generate", type=POSITIVE, metavar="N", help="N tokens behind the prompt, token by token, all together."
)
INNER = click.option("--inner", is_flag=True, help="Without embedding and vocabulary head.")
MACHINE = click.option("--machine", type=FILE, help="A profile; by default that of pi-sim calibrate.")
PROTOCOL = click.option("--protocol", default="crypten", show_default=True, help=PROTOCOL_HELP)
RECORD = click.option("--json", "record", type=FILE, help="Write the record here.")


def repeatable(option: str, name: str, text: str, *default: Any, **settings: Any) -> Callable[[Any], Any]:
    """Return an option that may be given several times."""
    shown = bool(default)
    return click.option(option, name, multiple=True, default=default, show_default=shown, help=text, **settings)


def network_option(command: Any) -> Any:
    """Add the repeatable option `--network`, with the same defaults for every command."""
    return repeatable("--network", "networks", f"{NETWORK_HELP} Repeatable.", *DEFAULT_NETWORKS)(command)


def protocol_option(*names: str) -> Callable[[Any], Any]:
    """Return the repeatable option `--protocol`, with these defaults."""
    return repeatable("--protocol", "protocols", f"{PROTOCOL_HELP} Repeatable.", *names)


def scenario_options(command: Any) -> Any:
    """Add the options of one inference: size, length, batch, KV cache, generation and `--inner`."""
    for option in (INNER, GENERATE, PROMPT_LENGTH, PAST, BATCH, LENGTH, SIZE):
        command = option(command)
    return command


PATIENCE_S = 2.0
"""Seconds after which a wait is announced."""


@contextmanager
def announced_wait(text: str) -> Iterator[None]:
    """Context of work without steps: on a terminal a spinner from the third second on, elsewhere one line."""
    console = Console(stderr=True)
    status = console.status(text)
    announce = status.start if console.is_terminal else lambda: click.echo(f"{text} ...", err=True)
    timer = Timer(PATIENCE_S, announce)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


LINES = 5
"""Lines of progress without a terminal."""


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    """Yield a function that shows the completed fraction; the bar disappears when all is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title)
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(title, total=1.0)

        def advance(fraction: float) -> None:
            progress.update(task, completed=fraction)
            if fraction >= 1:
                progress.stop()  # what is printed from now on stands by itself

        yield advance


def _lines(title: str) -> Callable[[float], None]:
    printed = 0

    def advance(fraction: float) -> None:
        nonlocal printed
        if fraction * LINES >= printed + 1:
            printed = int(fraction * LINES)
            click.echo(f"{title}: {fraction:.0%}", err=True)

    return advance
