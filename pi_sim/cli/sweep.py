"""Commands that price in bulk: a sweep, and the comparison with published figures."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_sim import resolution
from pi_sim.cli import json_help, options

if TYPE_CHECKING:
    import pandas as pd

    from pi_sim.grid.sweep import Sweep
    from pi_sim.grid.table import ResumableCsv, SweepRow

Names = tuple[str, ...]


@click.command(epilog=json_help.describe_keys(("Columns", json_help.SWEEP)))
@options.repeatable(
    "--model",
    "models",
    "A card, a config or a checkpoint, as of estimate.",
    *resolution.DEFAULT_MODELS,
    metavar="MODEL",
)
@options.repeatable("--size", "sizes", "A size's name or path.", "tiny")
@options.repeatable(
    "--seq-len",
    "lengths",
    "Tokens; by default each model's context, 2,048 where that is above 16,384.",
    type=options.POSITIVE,
)
@options.repeatable("--batch", "batches", "Sequences at once.", 1, type=options.POSITIVE)
@options.repeatable("--past", "pasts", "A decode step with a KV cache of N tokens.", type=options.POSITIVE, metavar="N")
@options.INNER
@options.repeatable("--protocol", "protocols", options.PROTOCOL_HELP, "crypten")
@options.network_option
@options.MACHINE
@click.option(
    "--out", type=options.FILE, help="A .csv or .parquet file, continued if it exists; default: standard output."
)
@click.option(
    "--report", type=options.FILE, metavar="FILE.md", help="A page with the Pareto fronts of quality and seconds."
)
@options.repeatable(
    "--records", "records", "Records of trainings; by default those shipped and reports/records.", type=options.FOLDER
)
@click.option(
    "--max-perplexity",
    type=click.FloatRange(0, min_open=True),
    metavar="P",
    help="Only designs that were trained to a perplexity of at most P.",
)
@click.option("--pareto", is_flag=True, help="Print the Pareto fronts of perplexity and seconds, a front a network.")
@click.option(
    "--format", "style", type=click.Choice(["table", "json", "csv", "markdown"]), default="csv", show_default=True,
    help="Format of standard output.",
)  # fmt: skip
def sweep(
    out: Path | None,
    report: Path | None,
    records: tuple[Path, ...],
    max_perplexity: float | None,
    pareto: bool,
    style: Any,
    **arguments: Any,
) -> None:
    """Price every combination of models, protocols and networks. Each one, also of sizes and lengths, is a line.

    Options that name something are repeatable. A combination without a price has a line with the reason. Lines that
    --out already has are not computed again, so that an interrupted sweep continues; to compute a line again, remove
    it.
    """
    grid = _resolve_sweep(records, **arguments)
    if max_perplexity is not None:
        grid = grid.limit_perplexity(max_perplexity)
    quality = _load_quality(grid, report, records) if report else None
    is_streamed = out is None and style == "csv" and not pareto
    rows = _run_sweep(grid, out, is_streamed)
    if pareto or not (out or is_streamed):
        from pi_sim.report import sweep as page

        click.echo(page.render_rows(page.pareto_rows(rows) if pareto else rows, style))
    if report and quality is not None:
        from pi_sim.report import pages

        for path in pages.write_sweep(rows, quality, report):
            click.echo(path, err=out is None)


def _resolve_sweep(
    records: tuple[Path, ...],
    models: Names,
    sizes: Names,
    protocols: Names,
    networks: Names,
    machine: Path | None,
    **axes: Any,
) -> "Sweep":
    """Resolve all names; a `UsageError` for one that does not exist, before anything is priced."""
    from pi_sim.cost.cost import load_profile
    from pi_sim.grid.sweep import Sweep, list_scenarios, make_price_tables
    from pi_sim.report.perplexities import known_perplexities

    sources = resolution.resolve_models(models, sizes)
    return Sweep(
        networks=resolution.resolve_networks(networks),
        scenarios=list_scenarios(sources, **axes),
        price_tables=make_price_tables(resolution.resolve_protocols(protocols)),
        machine=load_profile(machine),
        perplexities=known_perplexities(records, sources),
    )


def _load_quality(grid: "Sweep", report: Path, folders: tuple[Path, ...]) -> "pd.DataFrame":
    """Load the quality of the designs, and check that the page can be written, before anything is priced."""
    from pi_sim.files import check_writable
    from pi_sim.report import sweep as page
    from pi_sim.report.perplexities import default_folders

    check_writable(report)
    sources = [scenario.source for scenario in grid.scenarios]
    return page.load_qualities(list(folders) or default_folders(), sources)


def _run_sweep(grid: "Sweep", out: Path | None, is_streamed: bool) -> "list[SweepRow]":
    """Return all rows; show progress unless the rows go to standard output, then the rate of new ones."""
    progress = nullcontext(lambda fraction: None) if is_streamed else options.progress_bar("sweep")
    with _open_output(out, is_streamed) as table, progress as advance:
        before, started, computing = len(table.rows), time.perf_counter(), time.process_time()
        rows = grid.run(table, advance)
        elapsed, computing = time.perf_counter() - started, time.process_time() - computing
    lacking, new = sum(row.reason is not None for row in rows), len(table.rows) - before
    summary = f"{len(rows):,} estimates, {lacking:,} without a price"
    rate = f"; {new:,} new in {elapsed:.2f} s, {new / computing:,.0f} for each second of a core" if new else ""
    click.echo(f"{out or 'sweep'}: {summary}{rate}", err=True)
    return rows


@contextmanager
def _open_output(out: Path | None, is_streamed: bool) -> "Iterator[ResumableCsv]":
    """Open the table that rows go to; after Ctrl-C tell that the file is kept."""
    from pi_sim.grid.table import ResumableCsv, open_table

    if out is None:
        yield ResumableCsv(lambda text: click.echo(text, nl=False) if is_streamed else None)
        return
    try:
        with open_table(out) as table:
            yield table
    except KeyboardInterrupt:
        click.echo(f"{out}: finished lines are kept; repeat the command to continue.", err=True)
        raise


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--out", metavar="DIR", type=options.FOLDER, help="Write the page and its figure here.")
@options.STYLE
def validate(sources: Names, out: Path | None, style: Any) -> None:
    """Compare published figures with predictions. Takes all of protocols/published, or those of some SOURCEs.

    A figure that is off by more than its row's tolerance stays in the table, with the suspected reason.
    """
    from pi_sim import specs
    from pi_sim.report import published_figures
    from pi_sim.validation import validate_publication

    validations = [validate_publication(source) for source in sources or specs.list_names("protocols/published")]
    if out is None:
        click.echo(published_figures.render_validations(validations, style))
        return
    for path in published_figures.write_validations(validations, out):
        click.echo(path)
