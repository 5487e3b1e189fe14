"""What a model costs, without running it."""

from typing import Any

import click

from pi_sim.cli.options import LENGTH, MODEL, NETWORK, PROTOCOL, SIZE, STYLE


@click.command()
@MODEL
@SIZE
@LENGTH
@click.option(
    "--protocol", "protocols", multiple=True, default=["crypten"], show_default=True, help=f"{PROTOCOL} Repeatable."
)
@click.option(
    "--network", "networks", multiple=True, default=["lan", "wan"], show_default=True, help=f"{NETWORK} Repeatable."
)
@click.option(
    "--by",
    type=click.Choice(["op", "layer", "module", "total"]),
    default="op",
    show_default=True,
    help="What a row is.",
)
@STYLE
def estimate(
    model: str,
    size: str,
    seq_len: int | None,
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    by: Any,
    style: Any,
) -> None:
    """Price a model: rounds, bytes and seconds, without running it."""
    from pi_sim.cost.estimate import estimate as price
    from pi_sim.network import network
    from pi_sim.reporting.estimates import render

    links = [network(text) for text in networks]
    click.echo(render([price(model, size, protocol, seq_len, links) for protocol in protocols], by, style))
