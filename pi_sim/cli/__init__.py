"""The command line: each command reads its options, calls one function and prints what it returns."""

import signal
import sys
from typing import Any

import click

from pi_sim import __version__
from pi_sim.cli import bench, estimate, run, sweep, train
from pi_sim.errors import PiSimError
from pi_sim.records import ARGV


class Group(click.Group):
    """A group whose commands end an expected failure with one sentence and its exit status."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Keep the words of the command line for the records that it makes."""
        words = ("pi-sim", *args)
        context = super().make_context(info_name, args, *rest, **extra)
        context.meta[ARGV] = words
        return context

    def invoke(self, ctx: click.Context) -> Any:
        for ending in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, lambda number, frame: sys.exit(128 + number))
        try:
            return super().invoke(ctx)
        except PiSimError as error:
            click.echo(f"pi-sim: {error}", err=True)
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            click.echo("pi-sim: interrupted; nothing is left running.", err=True)
            sys.exit(128 + signal.SIGINT)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pi-sim")
def main() -> None:
    """What a transformer costs under secure two-party inference, and what that does to its quality."""


for command in (
    estimate.estimate,
    estimate.compare,
    sweep.sweep,
    sweep.validate,
    run.run,
    run.export,
    run.deal,
    run.keys,
    train.train,
    train.convert,
    train.diagnose,
    bench.report,
    estimate.models,
    estimate.protocols,
    estimate.networks,
    bench.calibrate,
    bench.bench,
):
    main.add_command(command)
