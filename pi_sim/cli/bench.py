"""Commands that measure kernels and this machine, and that write the pages of reports."""

from pathlib import Path
from typing import Any

import click

from pi_sim import files, resolution
from pi_sim.cli import options


@click.command()
@options.protocol_option("crypten", "crypten_tanh", "shaft", "lean")
@click.option(
    "--out",
    metavar="DIR",
    type=options.FOLDER,
    help="Write the page kernels.md, its figures and records/bench.json here.",
)
@click.option("--quick", is_flag=True, help="Small shapes, once each: a test, not a measurement.")
@options.RECORD
def bench(protocols: tuple[str, ...], out: Path | None, quick: bool, record: Path | None) -> None:
    """Count, audit and time every kernel and whole models. Runs two processes, also on a GPT-2 block and truncations.

    The machine should be idle. Measured rounds and bytes must equal the price, or the exit status is 1.
    """
    from pi_sim import records
    from pi_sim.errors import warn
    from pi_sim.inference.bench.bench import QUICK, run_bench
    from pi_sim.inference.calibrate import load_warning
    from pi_sim.report import kernels, pages

    executables = [resolution.resolve_executable(name) for name in dict.fromkeys(protocols)]
    paths = [path for path in (record, out and out / "records" / "bench.json") if path]
    for path in paths:
        files.check_writable(path)
    if sentence := load_warning():
        warn(sentence)
    result = run_bench(executables, QUICK if quick else records.BenchSize(), options.progress_bar)
    for path in paths:
        records.save(path, result)
    click.echo(kernels.terminal_tables(result))
    for path in pages.write_kernels([out / "records"], out) if out else []:
        click.echo(path)


@click.command()
@click.option("--out", type=options.FILE, help="A file instead of this machine's own profile.")
@click.option("--force", is_flag=True, help="Measure and save although other work keeps the machine busy.")
@options.STYLE
def calibrate(out: Path | None, force: bool, style: Any) -> None:
    """Measure how fast this machine computes in the ring. Estimates then include the seconds of computing.

    Runs two processes for a minute; the machine should be idle. Without --out, estimates find the profile.
    """
    from pi_sim.cost import cost
    from pi_sim.errors import RunError, warn
    from pi_sim.inference.calibrate import calibrate as measure_machine
    from pi_sim.inference.calibrate import load_warning
    from pi_sim.report import terminal

    path = out or cost.profile_path()
    files.check_writable(path)
    if sentence := load_warning():
        if not force:
            raise RunError(f"{sentence.rstrip('.')}; nothing was saved: wait until it is idle, or give --force.")
        warn(sentence)
    with options.progress_bar("calibration") as advance:
        profile = measure_machine(advance)
    cost.save_profile(profile, path)
    click.echo(terminal.render_machine(profile, style))
    click.echo(f"{path}: the profile", err=True)


@click.command()
@options.protocol_option("lean", "crypten_tanh")
@click.option(
    "--device", default="cuda", show_default=True, type=click.Choice(["cpu", "cuda"]), help="cuda runs on the CPU too."
)
@click.option("--budget", default=480.0, show_default=True, type=click.FloatRange(1, 86_400), help="Seconds to spend.")
@click.option("--quick", is_flag=True, help="Short texts, and one block of GPT-2: a test, not a measurement.")
@click.option(
    "--out", metavar="DIR", type=options.FOLDER, help="Write the page gpu.md, its figure and records/latency.json here."
)
@options.RECORD
def latency(
    protocols: tuple[str, ...], device: str, budget: float, quick: bool, out: Path | None, record: Path | None
) -> None:
    """Time private inference beside its perplexity: the tiny models and GPT-2 small, stock CrypTen against lean.

    Runs that do not fit the budget are listed with the reason. An interrupt keeps all finished runs. A failed run ends
    with the exit status 1.
    """
    from pi_sim import records
    from pi_sim.errors import RunError
    from pi_sim.inference.bench.latency import gpu_name, measure_latency
    from pi_sim.mpc.launch import threads_per_party
    from pi_sim.mpc.party import require_device
    from pi_sim.report import latency as tables
    from pi_sim.report import pages

    require_device(device)
    executables = [resolution.resolve_executable(name) for name in dict.fromkeys(protocols)]
    paths = [path for path in (record, out and out / "records" / "latency.json") if path]
    for path in paths:
        files.check_writable(path)
    runs: list[records.LatencyRow | records.SkippedRun] = []
    try:
        with options.progress_bar("latency") as advance:
            for run in measure_latency(executables, device, budget, quick, advance):
                runs.append(run)  # one by one: what ends the loop loses none
    finally:
        result = records.LatencyRecord(
            device=device,
            gpu=gpu_name(),
            budget_seconds=budget,
            quick=quick,
            threads=threads_per_party(),
            rows=tuple(run for run in runs if isinstance(run, records.LatencyRow)),
            skipped=tuple(run for run in runs if isinstance(run, records.SkippedRun)),
        )
        if runs:
            for path in paths:
                records.save(path, result)
            click.echo(tables.terminal_table(result))
            for path in pages.write_latency([out / "records"], out) if out else []:
                click.echo(path)
    if failed := [run for run in result.skipped if run.failed]:
        raise RunError(f"{len(failed)} of the runs failed, the first with: {failed[0].reason}")


@click.command()
@options.repeatable(
    "--records", "sources", "A folder of records; repeatable, a later one overrides.", "reports/records",
    metavar="DIR", type=options.PATH,
)  # fmt: skip
@click.option("--out", default="reports", show_default=True, metavar="DIR", type=options.PATH)
def report(sources: tuple[Path, ...], out: Path) -> None:
    """Write pages and figures from records of trainings and runs."""
    from pi_sim.report import pages

    for path in pages.write_report(list(sources), out):
        click.echo(path)
