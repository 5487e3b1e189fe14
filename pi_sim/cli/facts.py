"""What pi-sim knows: models, protocols, networks."""

import click


@click.command()
def models() -> None:
    """List model cards and sizes, and the trained weights that ship."""
    from pi_sim.zoo import catalogue

    click.echo(catalogue.table())


@click.command()
def protocols() -> None:
    """List protocols."""
    from pi_sim import specs

    for name in specs.names("protocols"):
        card = specs.protocol(name)
        click.echo(f"{name:16} {card.title} ({card.provenance}; {card.threat_model})")


@click.command()
def networks() -> None:
    """List the named networks."""
    from pi_sim.network import PRESETS

    for preset in PRESETS.values():
        click.echo(f"{preset.name:10} {preset.source}")
