"""Commands that measure kernels and this machine, and that write the pages of reports."""

from pathlib import Path
from typing import Any

import click

from pi_sim import files
from pi_sim.cli.options import PROTOCOL_HELP, STYLE, resolve_executable

DEFAULT_PROTOCOLS = ("crypten", "crypten_tanh", "shaft", "lean")


@click.command()
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    default=DEFAULT_PROTOCOLS,
    show_default=True,
    help=f"{PROTOCOL_HELP} Repeatable.",
)
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Write the page kernels.md, its figures and records/bench.json here.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Small shapes, once each: a test, not a measurement.")
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the record here.")
def bench(protocols: tuple[str, ...], out: Path | None, quick: bool, record: Path | None) -> None:
    """Count, audit and time every kernel, one GPT-2 block, shipped models and many truncations, between two processes.

    The machine should be idle. Measured rounds and bytes must equal the price, or the exit status is 1.
    """
    from pi_sim import records
    from pi_sim.cli import progress
    from pi_sim.errors import warn
    from pi_sim.report import kernels, pages
    from pi_sim.run.bench.bench import QUICK, run_bench
    from pi_sim.run.calibrate import load_warning

    executables = [resolve_executable(name) for name in dict.fromkeys(protocols)]
    paths = [path for path in (record, out and out / "records" / "bench.json") if path]
    for path in paths:
        files.check_writable(path)
    if sentence := load_warning():
        warn(sentence)
    result = run_bench(executables, QUICK if quick else records.BenchSize(), progress.bar)
    for path in paths:
        records.save(path, result)
    click.echo(kernels.terminal_tables(result))
    for path in pages.write_kernels([out / "records"], out) if out else []:
        click.echo(path)


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of this machine's own profile."
)
@STYLE
def calibrate(out: Path | None, style: Any) -> None:
    """Measure how fast this machine computes in the ring, so that estimates include the seconds of computing.

    Takes half a minute; the machine should be idle. Without --out, estimates find the profile.
    """
    from pi_sim.cli import progress
    from pi_sim.cost import machine
    from pi_sim.errors import warn
    from pi_sim.report import terminal
    from pi_sim.run.calibrate import calibrate as measure_machine
    from pi_sim.run.calibrate import load_warning

    path = out or machine.profile_path()
    files.check_writable(path)
    if sentence := load_warning():
        warn(sentence)
    with progress.bar("calibration") as advance:
        profile = measure_machine(advance)
    machine.save_profile(profile, path)
    click.echo(terminal.render_machine(profile, style))
    click.echo(f"{path}: the profile", err=True)


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
    """Write pages and figures from records of trainings and runs."""
    from pi_sim.report import pages

    for path in pages.write_report(list(sources), out):
        click.echo(path)
