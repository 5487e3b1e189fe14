"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

MODEL = click.option(
    "--model", metavar="MODEL", default="relu_nonorm", show_default=True,
    help="A card or a public model such as bert-base, or the path of a card, a config or a checkpoint.",
)  # fmt: skip
SIZE = click.option("--size", default="tiny", show_default=True, help="A size's name or path.")
PROTOCOL_HELP = "A protocol's name, or a .toml file."
NETWORK_HELP = "A network's name, or a link such as rtt=40ms,bw=200Mbps."
STYLE = click.option(
    "--format", "style", type=click.Choice(["table", "json", "csv", "markdown"]), default="table", show_default=True,
    help="How it is written to standard output.",
)  # fmt: skip
LENGTH = click.option("--seq-len", type=click.IntRange(1), help="Tokens; by default the model's context.")
BATCH = click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Sequences at once.")
PAST = click.option(
    "--past", type=click.IntRange(1), metavar="N", help="One decode step with a KV cache of N tokens, not a prefill."
)
INNER = click.option("--inner", is_flag=True, help="Without embedding and vocabulary head.")
MACHINE = click.option(
    "--machine", type=click.Path(path_type=Path, dir_okay=False), help="A profile; by default what calibrate measured."
)


def network_option(*names: str) -> Callable[[Any], Any]:
    """The option `--network`, with these by default."""
    return click.option(
        "--network", "networks", multiple=True, default=names, show_default=True, help=f"{NETWORK_HELP} Repeatable."
    )


def scenario_options(command: Any) -> Any:
    """The options that say what is asked of a model."""
    for option in (INNER, PAST, BATCH, LENGTH, SIZE):
        command = option(command)
    return command
