"""Many estimates at once."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_sim.cli import json_help, progress
from pi_sim.cli.options import INNER, MACHINE, NETWORK, PROTOCOL

if TYPE_CHECKING:
    import pandas as pd

    from pi_sim.sweep.answers import Answer
    from pi_sim.sweep.kept import Table
    from pi_sim.sweep.sweep import Sweep

DESIGNS = ("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm")
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
COUNT = click.IntRange(1)


def axis(
    option: str, name: str, told: str, *default: Any, kind: Any = str, metavar: str | None = None
) -> Callable[[Any], Any]:
    """A repeatable option."""
    return click.option(
        option, name, multiple=True, default=default, show_default=bool(default), type=kind, metavar=metavar, help=told
    )


@click.command(epilog=json_help.describe_keys(("Columns", json_help.SWEEP)))
@axis("--model", "models", "A card, a config or a checkpoint, as of estimate.", *DESIGNS, metavar="MODEL")
@axis("--size", "sizes", "A size's name or path.", "tiny")
@axis("--seq-len", "lengths", "Tokens; by default each model's context.", kind=COUNT)
@axis("--batch", "batches", "Sequences at once.", 1, kind=COUNT)
@axis("--past", "pasts", "A decode step with a KV cache of N tokens.", kind=COUNT, metavar="N")
@INNER
@axis("--protocol", "protocols", PROTOCOL, "crypten")
@axis("--network", "networks", NETWORK, "lan", "wan")
@MACHINE
@click.option("--out", type=FILE, help="A .csv or .parquet file, which is continued; by default standard output.")
@click.option("--report", type=FILE, metavar="FILE.md", help="A page with the Pareto fronts of quality and seconds.")
@axis("--records", "records", "Records of trainings; by default those shipped and reports/records.", kind=FOLDER)
def sweep(out: Path | None, report: Path | None, records: tuple[Path, ...], **asked: Any) -> None:
    """Price every combination of models, sizes, lengths, protocols and networks: one line of CSV for each.

    All options that name something are repeatable. What has no price has a reason instead. A line that is in --out
    already is not asked again, so that an interrupted sweep goes on where it stopped; remove a line to ask anew.
    """
    grid = _asked(**asked)
    quality = _quality(grid, report, records) if report else None
    answers = _run(grid, out)
    if report and quality is not None:
        from pi_sim.report import pages

        for path in pages.write_sweep(answers, quality, report):
            click.echo(path, err=out is None)


def _asked(
    models: tuple[str, ...],
    sizes: tuple[str, ...],
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    **rest: Any,
) -> "Sweep":
    """What was asked; a `UsageError` for a name that does not exist, before anything is priced."""
    from pi_sim.cost.machine import load
    from pi_sim.network import network
    from pi_sim.sweep.grid import Axes
    from pi_sim.sweep.sweep import Sweep
    from pi_sim.sweep.tariff import tariffs

    links = [network(text) for text in dict.fromkeys(networks)]
    questions = Axes(models, sizes, **rest).questions()
    return Sweep(questions, tariffs(protocols), links, load(machine))


def _quality(grid: "Sweep", report: Path, folders: tuple[Path, ...]) -> "pd.DataFrame":
    """What the designs are worth, and whether the page can be written: known before anything is priced."""
    from pi_sim.files import check_writable
    from pi_sim.report import sweep as page

    check_writable(report)
    subjects = [(question.model, question.size) for question in grid.questions]
    return page.load_qualities(list(folders) or page.default_folders(), subjects)


def _run(grid: "Sweep", out: Path | None) -> "list[Answer]":
    """All answers, with progress unless they are on standard output themselves; and how fast new ones came."""
    silent = nullcontext(lambda fraction: None)
    with _table(out) as table, progress.bar("sweep") if out else silent as advance:
        before, started, computing = len(table.known), time.perf_counter(), time.process_time()
        answers = grid.run(table, advance)
        elapsed, computing = time.perf_counter() - started, time.process_time() - computing
    lacking, new = sum(each.seconds is None for each in answers), len(table.known) - before
    told = f"{len(answers):,} estimates, {lacking:,} without a price"
    rate = f"; {new:,} new in {elapsed:.2f} s, {new / computing:,.0f} for each second of a core" if new else ""
    click.echo(f"{out or 'sweep'}: {told}{rate}", err=True)
    return answers


@contextmanager
def _table(out: Path | None) -> "Iterator[Table]":
    """Where answers go; who interrupts is told what was kept."""
    from pi_sim.sweep import kept, parquet

    if out is None:
        yield kept.Table(lambda text: click.echo(text, nl=False))
        return
    try:
        with (parquet if out.suffix == parquet.SUFFIX else kept).opened(out) as table:
            yield table
    except KeyboardInterrupt:
        click.echo(f"{out}: what is done is kept, and the same command goes on from there.", err=True)
        raise
