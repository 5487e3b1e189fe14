"""Commands that price models without running them, and that list models, protocols and networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_sim import resolution
from pi_sim.cli import json_help, options
from pi_sim.errors import UsageError

if TYPE_CHECKING:
    from pi_sim.cost.estimate import Estimate
    from pi_sim.zoo.source import ModelSource

Names = tuple[str, ...]
VIEWS = ["op", "layer", "module", "total"]


@click.command(
    epilog=json_help.describe_keys(
        ("JSON keys", json_help.ENVELOPE | json_help.ESTIMATE), ("total", json_help.TOTALS), ("rows", json_help.ROW)
    )
)
@options.MODEL
@options.scenario_options
@options.protocol_option("crypten")
@options.network_option
@options.MACHINE
@click.option(
    "--by", type=click.Choice([*VIEWS, "count"]), default="op", show_default=True,
    help="Rows of the table; count shows shapes instead of prices.",
)  # fmt: skip
@click.option("--top", type=click.IntRange(1), metavar="N", help="The N slowest rows on the first network, and others.")
@click.option("--explain", is_flag=True, help="Also what a protocol rewrites in the graph, and what each pass saves.")
@click.option("--shares", is_flag=True, help="Percentages of the total in the table too; Markdown and CSV have them.")
@options.STYLE
def estimate(
    model: str,
    size: str,
    protocols: Names,
    networks: Names,
    machine: Path | None,
    by: Any,
    top: Any,
    explain: bool,
    shares: bool,
    style: Any,
    **scenario: Any,
) -> None:
    """Price a model: rounds, bytes and seconds, without running it."""
    if top and by in ("total", "count"):
        raise UsageError(f"--top chooses among rows with prices, which --by {by} does not have; leave one of them out.")
    sources = resolution.resolve_models([model], [size])
    if by == "count":
        from pi_sim.cost.census import op_counts
        from pi_sim.report.estimates import render_counts

        click.echo(render_counts(op_counts(sources[0], **scenario), style))
        return
    from pi_sim.report.estimates import render_estimates

    explanation = _explain_all(sources[0], protocols, style, **scenario) if explain else None
    estimates = _estimate_all(sources, protocols, networks, machine, **scenario)
    if explanation:
        click.echo(explanation)
    click.echo(render_estimates(estimates, by, style, top, shares))


def _explain_all(source: "ModelSource", protocols: Names, style: Any, **scenario: Any) -> str:
    """Return the savings of every protocol's rewriting; a `UsageError` for one that rewrites nothing."""
    from pi_sim.cost.savings import explain_rewriting
    from pi_sim.report.estimates import render_savings

    if scenario.pop("prompt_len") or scenario.pop("generate"):
        raise UsageError("--explain tells of one graph; leave --prompt-len and --generate out.")
    if style in ("json", "csv"):
        raise UsageError("--explain prints a table of its own; choose --format table or markdown.")
    cards = [resolution.resolve_executable(name) for name in dict.fromkeys(protocols)]
    return render_savings(source, {card.name: explain_rewriting(source, card, **scenario) for card in cards}, style)


@click.command(epilog=json_help.describe_keys(("JSON keys", json_help.COMPARISON)))
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@options.scenario_options
@options.protocol_option("crypten")
@options.network_option
@options.MACHINE
@click.option("--by", type=click.Choice(VIEWS), default="op", show_default=True, help="Rows of the table.")
@options.STYLE
def compare(models: Names, size: str, protocols: Names, by: Any, style: Any, **scenario: Any) -> None:
    """Price models or protocols side by side, with ratios. Name two models, or two protocols."""
    from pi_sim.report.estimates import render_comparison

    sources = resolution.resolve_models(models, [size])
    click.echo(render_comparison(_estimate_all(sources, protocols, **scenario), by, style))


def _estimate_all(
    sources: "list[ModelSource]", protocols: Names, networks: Names, machine: Path | None, **scenario: Any
) -> "list[Estimate]":
    """Price every model under every protocol."""
    from pi_sim.cost.cost import load_profile
    from pi_sim.cost.estimate import estimate_model

    shared = {"networks": resolution.resolve_networks(networks), "machine": load_profile(machine), **scenario}
    cards = resolution.resolve_protocols(protocols)
    with options.announced_wait("pricing for the first time"):
        return [estimate_model(source, protocol, **shared) for source in sources for protocol in cards]


@click.command()
@options.STYLE
def models(style: Any) -> None:
    """List model cards and sizes, and the trained weights that ship. CSV has the cards alone."""
    from pi_sim.report.terminal import render_models

    click.echo(render_models(style))


@click.command()
@click.argument("name", required=False)
@options.STYLE
def protocols(name: str | None, style: Any) -> None:
    """List protocols and the operations that they price. With NAME, list its prices and their sources."""
    from pi_sim.cost.pricing import protocol_names
    from pi_sim.report import terminal

    if name:
        click.echo(terminal.render_protocol(resolution.resolve_protocols([name])[0], style))
    else:
        click.echo(terminal.render_protocols(resolution.resolve_protocols(protocol_names()), style))


@click.command()
@options.STYLE
def networks(style: Any) -> None:
    """List the named networks, each with its source."""
    from pi_sim.report.terminal import render_networks

    click.echo(render_networks(style))
