"""What models cost, without running them."""

from pathlib import Path
from typing import Any

import click

from pi_sim.cli import json_help
from pi_sim.cli.options import MACHINE, MODEL, PROTOCOL_HELP, STYLE, network_option, scenario_options
from pi_sim.errors import UsageError

PROTOCOLS_OPTION = click.option(
    "--protocol", "protocols", multiple=True, default=["crypten"], show_default=True, help=f"{PROTOCOL_HELP} Repeatable."
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
        from pi_sim.cost.counts import op_counts
        from pi_sim.report.estimates import render_counts

        click.echo(render_counts(op_counts(model, **asked), style))
        return
    from pi_sim.report.estimates import render_estimates

    click.echo(render_estimates(_estimate_all([model], protocols, networks, machine, asked), by, style, top))


@click.command(epilog=json_help.describe_keys(("JSON keys", json_help.COMPARISON)))
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@scenario_options
@PROTOCOLS_OPTION
@network_option("wan")
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
    click.echo(render_comparison(_estimate_all(list(models), protocols, networks, machine, asked), by, style))


def _estimate_all(
    models: list[str],
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    asked: dict[str, Any],
) -> list[Any]:
    """An estimate for every model under every protocol."""
    from pi_sim.cost.estimate import estimate_model as price
    from pi_sim.cost.machine import load_profile
    from pi_sim.network import parse_network

    links, profile = [parse_network(text) for text in dict.fromkeys(networks)], load_profile(machine)
    return [
        price(model, protocol=protocol, networks=links, machine=profile, **asked)
        for model in dict.fromkeys(models)
        for protocol in dict.fromkeys(protocols)
    ]
