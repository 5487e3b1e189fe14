"""What models cost, without running them."""

from pathlib import Path
from typing import Any

import click

from pi_sim.cli import json_help
from pi_sim.cli.options import MACHINE, MODEL, PROTOCOL, STYLE, networks, question
from pi_sim.errors import UsageError

PROTOCOLS = click.option(
    "--protocol", "protocols", multiple=True, default=["crypten"], show_default=True, help=f"{PROTOCOL} Repeatable."
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
@question
@PROTOCOLS
@networks("lan", "wan")
@MACHINE
@click.option(
    "--by",
    type=click.Choice([*VIEWS, "count"]),
    default="op",
    show_default=True,
    help="What a row is; count tells shapes instead of prices.",
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="The N dearest rows on the first network, and others.")
@STYLE
def estimate(
    model: str,
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    by: Any,
    top: int | None,
    style: Any,
    **asked: Any,
) -> None:
    """Price a model: rounds, bytes and seconds, without running it."""
    if top and by in ("total", "count"):
        raise UsageError(f"--top chooses among rows with prices, which --by {by} does not have; leave one of them out.")
    if by == "count":
        from pi_sim.cost.counts import counts
        from pi_sim.report.estimates import render_counts

        click.echo(render_counts(counts(model, **asked), style))
        return
    from pi_sim.report.estimates import render_estimates

    click.echo(render_estimates(_price([model], protocols, networks, machine, asked), by, style, top))


@click.command(epilog=json_help.describe_keys(("JSON keys", json_help.COMPARISON)))
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@question
@PROTOCOLS
@networks("wan")
@MACHINE
@click.option("--by", type=click.Choice(VIEWS), default="op", show_default=True, help="What a row is.")
@STYLE
def compare(
    models: tuple[str, ...],
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    by: Any,
    style: Any,
    **asked: Any,
) -> None:
    """Price models or protocols side by side, with ratios: two models, or one under two protocols."""
    from pi_sim.report.estimates import render_comparison

    if len(set(models)) * len(set(protocols)) < 2:
        raise UsageError(f"{models[0]} stands alone; name another model, or give --protocol twice.")
    click.echo(render_comparison(_price(list(models), protocols, networks, machine, asked), by, style))


def _price(
    models: list[str],
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    asked: dict[str, Any],
) -> list[Any]:
    """An estimate for every model under every protocol."""
    from pi_sim.cost.estimate import estimate as price
    from pi_sim.cost.machine import load
    from pi_sim.network import network

    links, profile = [network(text) for text in dict.fromkeys(networks)], load(machine)
    return [
        price(model, protocol=protocol, networks=links, machine=profile, **asked)
        for model in dict.fromkeys(models)
        for protocol in dict.fromkeys(protocols)
    ]
