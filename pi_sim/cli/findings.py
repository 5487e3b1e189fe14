"""What was found, as pages."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--records",
    "sources",
    multiple=True,
    default=["reports/records"],
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A folder of records; repeatable, a later one overrides.",
)
@click.option("--out", default="reports", show_default=True, metavar="DIR", type=click.Path(path_type=Path))
def report(sources: tuple[Path, ...], out: Path) -> None:
    """Make the page and the figures from records of trainings and runs."""
    from pi_sim.report import pages

    for path in pages.write_report(list(sources), out):
        click.echo(path)
