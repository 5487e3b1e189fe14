"""Prices held against the published record."""

from pathlib import Path
from typing import Any

import click

from pi_sim.cli.options import STYLE


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Write the page and its figure here."
)
@STYLE
def validate(sources: tuple[str, ...], out: Path | None, style: Any) -> None:
    """Print published figures beside ours: all of protocols/published, or those of some SOURCEs.

    What is off by more than a row's tolerance stays in the table with the reason that is suspected.
    """
    from pi_sim import specs
    from pi_sim.report import pages
    from pi_sim.validation.validate import validate_publication as hold

    found = [hold(source) for source in sources or specs.list_names("protocols/published")]
    if out is None:
        click.echo(pages.render_validations(found, style))
        return
    for path in pages.write_validation(found, out):
        click.echo(path)
