"""Commands that price models without running them, and that list models, protocols and networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_sim.cli import json_help
from pi_sim.cli.options import (
    MACHINE,
    MODEL,
    PROTOCOL_HELP,
    STYLE,
    network_option,
    resolve_models,
    resolve_networks,
    resolve_protocols,
    scenario_options,
)
from pi_sim.errors import UsageError

if TYPE_CHECKING:
    from pi_sim.cost.estimate import Estimate
    from pi_sim.zoo.source import ModelSource

PROTOCOLS_OPTION = click.option(
    "--protocol",
    "protocols",
    multiple=True,
    default=["crypten"],
    show_default=True,
    help=f"{PROTOCOL_HELP} Repeatable.",
)
VIEWS = ["op", "layer", "module", "total"]


@click.command(
    epilog=json_help.describe_keys(
        ("JSON keys", {**json_help.ENVELOPE, **json_help.ESTIMATE}),
        ("total", json_help.TOTALS),
        ("rows", json_help.ROW),
    )
)
@MODEL
@scenario_options
@PROTOCOLS_OPTION
@network_option("lan", "wan")
@MACHINE
@click.option(
    "--by",
    type=click.Choice([*VIEWS, "count"]),
    default="op",
    show_default=True,
    help="Rows of the table; count shows shapes instead of prices.",
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="The N slowest rows on the first network, and others.")
@click.option("--shares", is_flag=True, help="Percentages of the total in the table too; Markdown and CSV have them.")
@STYLE
def estimate(
    model: str,
    size: str,
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    by: Any,
    top: int | None,
    shares: bool,
    style: Any,
    **scenario: Any,
) -> None:
    """Price a model: rounds, bytes and seconds, without running it."""
    if top and by in ("total", "count"):
        raise UsageError(f"--top chooses among rows with prices, which --by {by} does not have; leave one of them out.")
    sources = resolve_models([model], [size])
    if by == "count":
        from pi_sim.cost.census import op_counts
        from pi_sim.report.estimates import render_counts

        click.echo(render_counts(op_counts(sources[0], **scenario), style))
        return
    from pi_sim.report.estimates import render_estimates

    estimates = _estimate_all(sources, protocols, networks, machine, scenario)
    click.echo(render_estimates(estimates, by, style, top, shares))


@click.command(epilog=json_help.describe_keys(("JSON keys", json_help.COMPARISON)))
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@scenario_options
@PROTOCOLS_OPTION
@network_option("wan")
@MACHINE
@click.option("--by", type=click.Choice(VIEWS), default="op", show_default=True, help="Rows of the table.")
@STYLE
def compare(
    models: tuple[str, ...],
    size: str,
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    by: Any,
    style: Any,
    **scenario: Any,
) -> None:
    """Price models or protocols side by side, with ratios: two models, or one under two protocols."""
    from pi_sim.report.estimates import render_comparison

    if len(set(models)) * len(set(protocols)) < 2:
        raise UsageError(f"{models[0]} stands alone; name another model, or give --protocol twice.")
    sources = resolve_models(models, [size])
    click.echo(render_comparison(_estimate_all(sources, protocols, networks, machine, scenario), by, style))


def _estimate_all(
    sources: "list[ModelSource]",
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    scenario: dict[str, Any],
) -> "list[Estimate]":
    """Price every model under every protocol."""
    from pi_sim.cost.estimate import estimate_model
    from pi_sim.cost.machine import load_profile

    links, profile, cards = resolve_networks(networks), load_profile(machine), resolve_protocols(protocols)
    return [
        estimate_model(source, protocol, networks=links, machine=profile, **scenario)
        for source in sources
        for protocol in cards
    ]


@click.command()
def models() -> None:
    """List model cards and sizes, and the trained weights that ship."""
    from pi_sim.report.terminal import render_models

    click.echo(render_models())


@click.command()
@click.argument("name", required=False)
@STYLE
def protocols(name: str | None, style: Any) -> None:
    """List protocols and which operations they price; or the prices of NAME, with their sources."""
    from pi_sim.cost.pricing import protocol_names
    from pi_sim.report import terminal

    if name:
        click.echo(terminal.render_protocol(resolve_protocols([name])[0], style))
    else:
        click.echo(terminal.render_protocols(resolve_protocols(protocol_names()), style))


@click.command()
@STYLE
def networks(style: Any) -> None:
    """List the named networks, each with its source."""
    from pi_sim.report.terminal import render_networks

    click.echo(render_networks(style))
