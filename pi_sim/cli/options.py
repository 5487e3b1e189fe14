"""Options that several commands share, and the objects that their texts name.

Each text of `--model`, `--size`, `--protocol`, `--network` and `--dealer` is resolved here, once: functions below the
command line take the objects.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pi_sim.cost.pricing import PricedProtocol
    from pi_sim.network import Network
    from pi_sim.specs import ExecutableProtocol
    from pi_sim.zoo.source import ModelSource

DEFAULT_MODEL = "relu_nonorm"
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
LENGTH = click.option("--seq-len", type=click.IntRange(1), help="Tokens; by default the model's context.")
BATCH = click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Sequences at once.")
PAST = click.option(
    "--past", type=click.IntRange(1), metavar="N", help="One decode step with a KV cache of N tokens, not a prefill."
)
INNER = click.option("--inner", is_flag=True, help="Without embedding and vocabulary head.")
MACHINE = click.option(
    "--machine", type=click.Path(path_type=Path, dir_okay=False), help="A profile; by default that of pi-sim calibrate."
)


def network_option(*names: str) -> Callable[[Any], Any]:
    """Return the repeatable option `--network`, with these defaults."""
    return click.option(
        "--network", "networks", multiple=True, default=names, show_default=True, help=f"{NETWORK_HELP} Repeatable."
    )


def scenario_options(command: Any) -> Any:
    """Add the options of one inference: size, length, batch, KV cache and `--inner`."""
    for option in (INNER, PAST, BATCH, LENGTH, SIZE):
        command = option(command)
    return command


def resolve_models(models: Iterable[str], sizes: Iterable[str]) -> "list[ModelSource]":
    """Return the source of each model at each size, each name once; a `UsageError` for an unknown name."""
    from pi_sim.zoo.source import ModelSource

    names = list(dict.fromkeys(sizes))
    return [ModelSource.parse(model, size) for model in dict.fromkeys(models) for size in names]


def resolve_protocols(names: Iterable[str]) -> "list[PricedProtocol]":
    """Return the protocols, executable, declared or plugins, each name once."""
    from pi_sim.cost.pricing import resolve_protocol

    return [resolve_protocol(name) for name in dict.fromkeys(names)]


def resolve_executable(name: str) -> "ExecutableProtocol":
    """Return a protocol that runs here; a `UsageError` for a declared one."""
    from pi_sim.specs import load_executable_protocol

    return load_executable_protocol(name)


def resolve_networks(texts: Iterable[str]) -> "list[Network]":
    """Return the networks, presets or links, each text once."""
    from pi_sim.network import parse_network

    return [parse_network(text) for text in dict.fromkeys(texts)]
