"""Options that several commands share."""

import click

MODEL = click.option(
    "--model", metavar="MODEL", default="relu_nonorm", show_default=True, help="A card's name or path, or a checkpoint."
)
SIZE = click.option("--size", default="tiny", show_default=True, help="A size's name or path.")
PROTOCOL = "A protocol's name, or a .toml file."
NETWORK = "A network's name, or a link such as rtt=40ms,bw=200Mbps."
STYLE = click.option(
    "--format", "style", type=click.Choice(["table", "json", "csv", "markdown"]), default="table", show_default=True,
    help="How it is written to standard output.",
)  # fmt: skip
LENGTH = click.option("--seq-len", type=click.IntRange(1), help="Tokens; by default the model's context.")
