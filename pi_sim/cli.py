"""The command line: each command reads its options, calls one function and prints what it returns."""

import signal
import sys
from pathlib import Path
from typing import Any

import click

from pi_sim import __version__
from pi_sim.errors import PiSimError, warn


class Group(click.Group):
    """A group whose commands end an expected failure with one sentence and its exit status."""

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


MODEL = click.option(
    "--model", metavar="MODEL", default="relu_nonorm", show_default=True, help="A card's name or path, or a checkpoint."
)
SIZE = click.option("--size", default="tiny", show_default=True, help="A size's name or path.")
PROTOCOL = "A protocol's name, or a .toml file."
NETWORK = "A network's name, or a link such as rtt=40ms,bw=200Mbps."
STYLE = click.option(
    "--format", "style", type=click.Choice(["table", "json", "csv", "markdown"]), default="table", show_default=True,
    help="How it is written to standard output.",
)  # fmt: skip
LENGTH = click.option("--seq-len", type=click.IntRange(1), help="Tokens; by default the model's context.")


@main.command()
@MODEL
@SIZE
@LENGTH
@click.option(
    "--protocol", "protocols", multiple=True, default=["crypten"], show_default=True, help=f"{PROTOCOL} Repeatable."
)
@click.option(
    "--network", "networks", multiple=True, default=["lan", "wan"], show_default=True, help=f"{NETWORK} Repeatable."
)
@click.option(
    "--by",
    type=click.Choice(["op", "layer", "module", "total"]),
    default="op",
    show_default=True,
    help="What a row is.",
)
@STYLE
def estimate(
    model: str,
    size: str,
    seq_len: int | None,
    protocols: tuple[str, ...],
    networks: tuple[str, ...],
    by: Any,
    style: Any,
) -> None:
    """Price a model: rounds, bytes and seconds, without running it."""
    from pi_sim.cost.estimate import estimate as price
    from pi_sim.network import network
    from pi_sim.reporting.estimates import render

    links = [network(text) for text in networks]
    click.echo(render([price(model, size, protocol, seq_len, links) for protocol in protocols], by, style))


@main.group()
def run() -> None:
    """Run a model privately, for real."""


@run.command("two-party")
@click.option("--model", metavar="MODEL", help="A card or a checkpoint; relu_nonorm, unless a bundle is given.")
@SIZE
@LENGTH
@click.option("--protocol", default="crypten", show_default=True, help=PROTOCOL)
@click.option("--sequences", default=1, show_default=True, type=click.IntRange(1), help="How many held-out texts.")
@click.option("--network", default="none", show_default=True, help=f"Hold messages back. {NETWORK}")
@click.option("--bundle", type=click.Path(path_type=Path), help="What `pi-sim export` wrote, instead of the weights.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="TCP port on the loopback; 0 takes a free one.")
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0.1, 86_400),
    help="Seconds without a message after which a party gives up.",
)
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the record here.")
def two_party(
    model: str | None,
    size: str,
    seq_len: int | None,
    protocol: str,
    sequences: int,
    network: str,
    bundle: Path | None,
    port: int,
    timeout: float,
    record: Path | None,
) -> None:
    """Two processes on this machine, each with its own shares, compute the logits of held-out text."""
    from pi_sim import records
    from pi_sim.network import network as link
    from pi_sim.reporting import progress, runs
    from pi_sim.run.two_party import Request
    from pi_sim.run.two_party import two_party as private_run

    imitated = None if network == "none" else link(network)
    chosen = model or (None if bundle else "relu_nonorm")
    request = Request(chosen, size, protocol, seq_len, sequences, bundle, imitated, port=port, timeout=timeout)
    if record:
        records.check_writable(record)
    with progress.bar("private inference") as advance:
        found = private_run(request, warn, advance)
    click.echo(runs.summary(found))
    if record:
        records.save(record, "run", found)


@main.command()
@MODEL
@SIZE
@LENGTH
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder that is new or empty.")
def export(model: str, size: str, seq_len: int | None, out: Path) -> None:
    """Write a trained model as a secret-shared graph: one file of shares for each party."""
    from pi_sim.run.two_party import export as write

    write(model, size, seq_len, out)
    click.echo(f"{out}: graph.json, and the weights' shares in party0.safetensors and party1.safetensors")


@main.command()
@click.option("--model", metavar="CARD", help="A model card's name or path, to train from scratch.")
@click.option("--from", "source", type=click.Path(path_type=Path), help="A checkpoint's folder instead, to fine-tune.")
@click.option("--size", help="A size's name or path.  [default: tiny, or what --from was trained at]")
@click.option("--recipe", metavar="NAME", help="One of the card's, such as paper.  [default: that for the size]")
@click.option("--corpus", help="packages, stdlib, hf:NAME, or a path of text.  [default: packages, or that of --from]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1))
@click.option("--tokens", type=click.IntRange(1), help="Tokens to see, instead of the recipe's.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the design or recipe.")
@click.option("--out", type=click.Path(path_type=Path), help="A new folder, or an interrupted training's.")
def train(out: Path | None, **choices: Any) -> None:
    """Train a model card from scratch, or fine-tune a checkpoint.

    Ctrl-C keeps a checkpoint, and the same command continues. On several GPUs or machines:
    torchrun --nproc-per-node 8 -m pi_sim train ...
    """
    from pi_sim.training import finished, processes, request, trainer

    with processes.first_speaks():
        chosen = request.make(**choices)
        folder = out or Path("runs") / chosen.title
        if found := trainer.train(chosen, folder):
            click.echo(f"{folder}: {finished.sentence(found)}")


@main.command()
@click.argument("checkpoint")
@SIZE
@click.option("--norm", metavar="NORM", help="Of the blocks: none, layernorm, rmsnorm, dyt, dyt-hardtanh or derf.")
@click.option("--final-norm", metavar="NORM", help="Before the vocabulary head, likewise.")
@click.option("--activation", metavar="NAME", help="relu, gelu, silu, leaky_relu, learnable_lrelu, quad, identity ...")
@click.option("--attention", metavar="FORM", help="softmax, 2relu or 2quad.")
@click.option("--relu-after-norm", is_flag=True, default=None, help="Put a ReLU after each norm of the blocks.")
@click.option("--ffn", metavar="FORM", help="scaled, or fused: scaled, and one matrix.")
@click.option("--drop-ffn", "dropped_ffn", multiple=True, type=int, metavar="LAYER", help="Repeatable.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="alpha_attention, slope, temperature ...")
@click.option("--corpus", metavar="TEXT", help="What to measure on; by default the text that was held out.")
@click.option("--out", type=click.Path(path_type=Path), help="A folder that is new or empty.")
def convert(
    checkpoint: str, size: str, settings: tuple[str, ...], corpus: str | None, out: Path | None, **switches: Any
) -> None:
    """Change the design of a trained CHECKPOINT, a card's or a folder's; fine-tune it with `pi-sim train --from`."""
    from pi_sim.training import convert as conversion

    plan = conversion.plan(switches, settings)
    folder = out or Path("runs") / conversion.title(checkpoint, size, plan)
    found = conversion.convert(checkpoint, size, plan, folder, corpus)
    click.echo(f"{folder}: {conversion.sentence(found)}")


@main.command()
@MODEL
@SIZE
@LENGTH
@click.option("--sequences", default=32, show_default=True, type=click.IntRange(1), help="How many texts.")
@click.option("--corpus", metavar="TEXT", help="packages, stdlib, a path, or random; by default what was held out.")
@click.option("--protocol", default="crypten", show_default=True, help=f"Whose kernels it must suit. {PROTOCOL}")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="A folder for figures, SVG and PNG.")
@click.option("--json", "record", type=click.Path(path_type=Path, dir_okay=False), help="Write the record here.")
@STYLE
def diagnose(out: Path | None, record: Path | None, style: Any, **choices: Any) -> None:
    """Look inside a model: attention entropy, NaN, sparsity, pre-activations, and ranges for fixed point."""
    from pi_sim import records
    from pi_sim.reporting import diagnoses, progress
    from pi_sim.run.diagnose import diagnose as look

    for place in (record, out and out / "entropy.svg"):
        if place:
            records.check_writable(place)
    with progress.bar("diagnosis") as advance:
        found = look(**choices, advance=advance)
    if out:
        diagnoses.figures(found, out)
    if record:
        records.save(record, "diagnosis", found)
    click.echo(diagnoses.render(found, style))


@main.command()
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
    """Make the page and the figures from records of trainings and runs."""
    from pi_sim.reporting import markdown

    for path in markdown.report(list(sources), out):
        click.echo(path)


@main.command()
def models() -> None:
    """List model cards and sizes, and the trained weights that ship."""
    from pi_sim.zoo import catalogue

    click.echo(catalogue.table())


@main.command()
def protocols() -> None:
    """List protocols."""
    from pi_sim import specs

    for name in specs.names("protocols"):
        card = specs.protocol_card(name)
        click.echo(f"{name:16} {card.title} ({card.provenance}; {card.threat_model})")


@main.command()
def networks() -> None:
    """List the named networks."""
    from pi_sim.network import PRESETS

    for preset in PRESETS.values():
        click.echo(f"{preset.name:10} {preset.source}")
