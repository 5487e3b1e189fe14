"""What pi-sim knows: models, protocols, networks."""

from typing import Any

import click

from pi_sim.cli.options import STYLE


@click.command()
def models() -> None:
    """List model cards and sizes, and the trained weights that ship."""
    from pi_sim.zoo import catalogue

    click.echo(catalogue.model_table())


@click.command()
@click.argument("name", required=False)
@STYLE
def protocols(name: str | None, style: Any) -> None:
    """List protocols and which operations they price; or the prices of NAME, with their sources."""
    from pi_sim.cost.protocols import protocol_names, resolve_protocol
    from pi_sim.report import terminal

    if name:
        click.echo(terminal.render_protocol(resolve_protocol(name), style))
    else:
        click.echo(terminal.render_protocols([resolve_protocol(each) for each in protocol_names()], style))


@click.command()
@STYLE
def networks(style: Any) -> None:
    """List the named networks, each with its source."""
    from pi_sim.report.terminal import render_networks

    click.echo(render_networks(style))
