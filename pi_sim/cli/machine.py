"""The machine that costs are computed on."""

from pathlib import Path
from typing import Any

import click

from pi_sim.cli.options import STYLE


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of this machine's own profile."
)
@STYLE
def calibrate(out: Path | None, style: Any) -> None:
    """Measure how fast this machine computes in the ring, so that estimates tell the seconds of computing too.

    Takes half a minute; nothing else should keep the machine busy. Without --out, estimates find the profile.
    """
    from pi_sim import files
    from pi_sim.cli import progress
    from pi_sim.cost import machine
    from pi_sim.errors import warn
    from pi_sim.report import terminal
    from pi_sim.run import calibrate as measuring

    path = out or machine.place()
    files.check_writable(path)
    if sentence := measuring.busy():
        warn(sentence)
    with progress.bar("calibration") as advance:
        found = measuring.calibrate(advance)
    machine.save(found, path)
    click.echo(terminal.render_machine(found, style))
    click.echo(f"{path}: the profile", err=True)
