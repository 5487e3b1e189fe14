"""Command line: each command resolves its options, calls one function and prints the result."""

import signal
import sys
from typing import Any

import click

from pi_sim import __version__
from pi_sim.cli import bench, estimate, run, sweep, train
from pi_sim.cli.examples import add_examples
from pi_sim.errors import PiSimError
from pi_sim.provenance import ARGV

EVERYDAY = (
    estimate.estimate,
    estimate.compare,
    sweep.sweep,
    sweep.validate,
    run.run,
    train.train,
    train.convert,
    train.diagnose,
    bench.report,
    estimate.models,
    estimate.protocols,
)
ADVANCED = (run.export, run.deal, run.keys, estimate.networks, bench.calibrate, bench.bench, bench.latency)


class Group(click.Group):
    """The command line: an expected failure ends with one sentence on stderr and its exit status."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Store the words of the command line for the records that it makes."""
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the everyday commands, then the advanced ones."""
        width = max(len(name) for name in self.commands)
        limit = formatter.width - 6 - width
        for title, commands in (("Commands", EVERYDAY), ("Advanced commands", ADVANCED)):
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{command.name:{width}}", command.get_short_help_str(limit)) for command in commands]
                )


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pi-sim")
def main() -> None:
    """Price transformers under secure two-party inference, run them, and measure what it does to their quality."""


for command in (*EVERYDAY, *ADVANCED):
    main.add_command(command)
add_examples(main)
