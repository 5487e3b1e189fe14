"""Commands that price in bulk: a sweep, and the comparison with published figures."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_sim.cli import json_help, progress
from pi_sim.cli.options import (
    INNER,
    MACHINE,
    NETWORK_HELP,
    PROTOCOL_HELP,
    STYLE,
    resolve_models,
    resolve_networks,
    resolve_protocols,
)

if TYPE_CHECKING:
    import pandas as pd

    from pi_sim.sweep.sweep import Sweep
    from pi_sim.sweep.table import ResumableCsv, SweepRow

DEFAULT_MODELS = ("gelu_ln", "relu_ln", "gelu_nonorm", "relu_nonorm")
FILE_PATH = click.Path(path_type=Path, dir_okay=False)
FOLDER_PATH = click.Path(path_type=Path, file_okay=False)
POSITIVE_INT = click.IntRange(1)


def axis_option(
    option: str, name: str, description: str, *default: Any, kind: Any = str, metavar: str | None = None
) -> Callable[[Any], Any]:
    """Return a repeatable option."""
    return click.option(
        option,
        name,
        multiple=True,
        default=default,
        show_default=bool(default),
        type=kind,
        metavar=metavar,
        help=description,
    )


@click.command(epilog=json_help.describe_keys(("Columns", json_help.SWEEP)))
@axis_option("--model", "models", "A card, a config or a checkpoint, as of estimate.", *DEFAULT_MODELS, metavar="MODEL")
@axis_option("--size", "sizes", "A size's name or path.", "tiny")
@axis_option("--seq-len", "lengths", "Tokens; by default each model's context.", kind=POSITIVE_INT)
@axis_option("--batch", "batches", "Sequences at once.", 1, kind=POSITIVE_INT)
@axis_option("--past", "pasts", "A decode step with a KV cache of N tokens.", kind=POSITIVE_INT, metavar="N")
@INNER
@axis_option("--protocol", "protocols", PROTOCOL_HELP, "crypten")
@axis_option("--network", "networks", NETWORK_HELP, "lan", "wan")
@MACHINE
@click.option(
    "--out", type=FILE_PATH, help="A .csv or .parquet file, continued if it exists; default: standard output."
)
@click.option(
    "--report", type=FILE_PATH, metavar="FILE.md", help="A page with the Pareto fronts of quality and seconds."
)
@axis_option(
    "--records", "records", "Records of trainings; by default those shipped and reports/records.", kind=FOLDER_PATH
)
def sweep(out: Path | None, report: Path | None, records: tuple[Path, ...], **options: Any) -> None:
    """Price every combination of models, sizes, lengths, protocols and networks: one line of CSV for each.

    Options that name something are repeatable. A combination without a price has a line with the reason. Lines that
    --out already has are not computed again, so that an interrupted sweep continues; to compute a line again, remove
    it.
    """
    grid = _resolve_sweep(**options)
    quality = _load_quality(grid, report, records) if report else None
    rows = _run_sweep(grid, out)
    if report and quality is not None:
        from pi_sim.report import pages

        for path in pages.write_sweep(rows, quality, report):
            click.echo(path, err=out is None)


def _resolve_sweep(
    models: tuple[str, ...],
    sizes: tuple[str, ...],
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    machine: Path | None,
    **axes: Any,
) -> "Sweep":
    """Resolve all names; a `UsageError` for one that does not exist, before anything is priced."""
    from pi_sim.cost.machine import load_profile
    from pi_sim.sweep.sweep import Grid, Sweep, make_price_tables

    return Sweep(
        networks=resolve_networks(networks),
        scenarios=Grid(resolve_models(models, sizes), **axes).scenarios(),
        price_tables=make_price_tables(resolve_protocols(protocols)),
        machine=load_profile(machine),
    )


def _load_quality(grid: "Sweep", report: Path, folders: tuple[Path, ...]) -> "pd.DataFrame":
    """Load the quality of the designs, and check that the page can be written, before anything is priced."""
    from pi_sim.files import check_writable
    from pi_sim.report import sweep as page

    check_writable(report)
    return page.load_qualities(
        list(folders) or page.default_folders(), [scenario.source for scenario in grid.scenarios]
    )


def _run_sweep(grid: "Sweep", out: Path | None) -> "list[SweepRow]":
    """Return all rows; show progress unless the rows go to standard output, then the rate of new ones."""
    silent = nullcontext(lambda fraction: None)
    with _open_output(out) as table, progress.bar("sweep") if out else silent as advance:
        before, started, computing = len(table.rows), time.perf_counter(), time.process_time()
        rows = grid.run(table, advance)
        elapsed, computing = time.perf_counter() - started, time.process_time() - computing
    lacking, new = sum(row.seconds is None for row in rows), len(table.rows) - before
    summary = f"{len(rows):,} estimates, {lacking:,} without a price"
    rate = f"; {new:,} new in {elapsed:.2f} s, {new / computing:,.0f} for each second of a core" if new else ""
    click.echo(f"{out or 'sweep'}: {summary}{rate}", err=True)
    return rows


@contextmanager
def _open_output(out: Path | None) -> "Iterator[ResumableCsv]":
    """Open the table that rows go to; after Ctrl-C tell that the file is kept."""
    from pi_sim.sweep.table import ResumableCsv, open_table

    if out is None:
        yield ResumableCsv(lambda text: click.echo(text, nl=False))
        return
    try:
        with open_table(out) as table:
            yield table
    except KeyboardInterrupt:
        click.echo(f"{out}: finished lines are kept; repeat the command to continue.", err=True)
        raise


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Write the page and its figure here."
)
@STYLE
def validate(sources: tuple[str, ...], out: Path | None, style: Any) -> None:
    """Compare published figures with predictions: all of protocols/published, or those of some SOURCEs.

    A figure that is off by more than its row's tolerance stays in the table, with the suspected reason.
    """
    from pi_sim import specs
    from pi_sim.report import pages
    from pi_sim.validation import validate_publication

    validations = [validate_publication(source) for source in sources or specs.list_names("protocols/published")]
    if out is None:
        click.echo(pages.render_validations(validations, style))
        return
    for path in pages.write_validation(validations, out):
        click.echo(path)
