"""Kernels and whole models, measured."""

from pathlib import Path

import click

from pi_sim.cli.options import PROTOCOL

PROTOCOLS = ("crypten", "crypten_tanh", "shaft", "lean")


@click.command()
@click.option(
    "--protocol", "protocols", multiple=True, default=PROTOCOLS, show_default=True, help=f"{PROTOCOL} Repeatable."
)
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Write the page kernels.md, its figures and records/bench.json here.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Small shapes, once each: whether it works, not how fast.")
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the record here.")
def bench(protocols: tuple[str, ...], out: Path | None, quick: bool, record: Path | None) -> None:
    """Count, audit and time every kernel, one GPT-2 block, shipped models and many truncations, between two processes.

    Nothing else should keep the machine busy. What is counted must equal its price, or the exit status is 1.
    """
    from pi_sim import files, records
    from pi_sim.cli import progress
    from pi_sim.errors import warn
    from pi_sim.report import kernels, pages
    from pi_sim.run import calibrate
    from pi_sim.run.bench.bench import bench as measure
    from pi_sim.run.bench.plan import QUICK

    places = [place for place in (record, out and out / "records" / "bench.json") if place]
    for place in places:
        files.check_writable(place)
    if sentence := calibrate.busy():
        warn(sentence)
    found = measure(list(dict.fromkeys(protocols)), QUICK if quick else records.BenchSize(), progress.bar)
    for place in places:
        records.save(place, found)
    click.echo(kernels.terminal_tables(found))
    for path in pages.write_kernels([out / "records"], out) if out else []:
        click.echo(path)
