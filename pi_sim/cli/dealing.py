"""Correlated randomness, dealt ahead of time."""

from pathlib import Path

import click

from pi_sim.cli.options import PROTOCOL_HELP


@click.command()
@click.option("--bundle", required=True, type=click.Path(path_type=Path), help="What `pi-sim export` wrote.")
@click.option("--protocol", default="crypten", show_default=True, help=PROTOCOL_HELP)
@click.option("--sequences", default=1, show_default=True, type=click.IntRange(1), help="How many it must last for.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder.")
def deal(bundle: Path, protocol: str, sequences: int, out: Path) -> None:
    """Write ahead of time the randomness that a graph needs: one file for each party, to be used once.

    Whoever deals can open everything that is computed with it, so neither party should.
    """
    from pi_sim.cli import progress
    from pi_sim.run import deal as dealing

    with progress.bar("dealing") as advance:
        server, client = dealing.write_dealt_files(bundle, protocol, sequences, out, advance)
    click.echo(f"{out}: {server:,} bytes in party0.dealing, {client:,} in party1.dealing, to be used once")
