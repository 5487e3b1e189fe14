"""Commands that train, convert and diagnose models."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_sim import files, resolution
from pi_sim.cli import options
from pi_sim.errors import UsageError

if TYPE_CHECKING:
    from pi_sim.training.plan import Plan


@click.command()
@click.option("--model", metavar="CARD", help="A model card's name or path, to train from scratch.")
@click.option("--from", "source", type=options.PATH, help="A checkpoint's folder instead, to fine-tune.")
@click.option("--size", help="A size's name or path.  [default: tiny, or what --from was trained at]")
@click.option("--recipe", metavar="NAME", help="One of the card's, such as paper, instead of the one for the size.")
@click.option("--corpus", help="packages, stdlib, hf:NAME, or a path of text.  [default: packages, or that of --from]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1))
@click.option("--tokens", type=options.POSITIVE, help="Training tokens, instead of the recipe's.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the design or recipe.")
@click.option("--out", type=options.PATH, help="A new folder, or an interrupted training's.")
def train(out: Path | None, **arguments: Any) -> None:
    """Train a model card from scratch, or fine-tune a checkpoint.

    With --from, --recipe means the card of the checkpoint's record, or that of --model.

    Ctrl-C keeps a checkpoint, and the same command continues. On several GPUs or machines:
    torchrun --nproc-per-node 8 -m pi_sim train ...
    """
    from pi_sim.training import checkpoints, distributed
    from pi_sim.training import train as training

    with distributed.quiet_nonzero_ranks():
        plan = _plan_training(**arguments)
        folder = out or Path("runs") / plan.title
        if record := training.train(plan, folder):
            click.echo(f"{folder}: {checkpoints.summarize_training(record)}")


def _plan_training(
    model: str | None, source: Path | None, size: str | None, corpus: str | None, recipe: str | None, **common: Any
) -> "Plan":
    """Return the plan of a training, from scratch or from a checkpoint."""
    from pi_sim import specs
    from pi_sim.training.fine_tuning import SourceCheckpoint, plan_fine_tuning
    from pi_sim.training.plan import plan_from_scratch

    card = specs.load_model_card(model) if model else None
    if source is not None and (card is None or recipe is not None):
        dimensions = specs.load_size(size) if size else None
        checkpoint = SourceCheckpoint(source)
        return plan_fine_tuning(checkpoint, size=dimensions, corpus=corpus, card=card, recipe=recipe, **common)
    if source is not None or card is None:
        raise UsageError(
            "give either --model, a card to train from scratch, or --from, a checkpoint to fine-tune; give both only "
            "with --recipe, for a recipe of that card."
        )
    dimensions = specs.load_size(size or "tiny")
    return plan_from_scratch(card, dimensions, corpus=corpus or "packages", recipe=recipe, **common)


@click.command()
@click.argument("checkpoint")
@options.SIZE
@click.option("--norm", metavar="NORM", help="Of the blocks: none, layernorm, rmsnorm, dyt, dyt-hardtanh or derf.")
@click.option("--final-norm", metavar="NORM", help="Before the vocabulary head, likewise.")
@click.option("--activation", metavar="NAME", help="relu, gelu, silu, leaky_relu, learnable_lrelu, quad, identity ...")
@click.option("--attention", metavar="FORM", help="softmax, 2relu or 2quad.")
@click.option("--relu-after-norm", is_flag=True, default=None, help="Put a ReLU after each norm of the blocks.")
@click.option("--ffn", metavar="FORM", help="scaled, or fused: scaled, and one matrix.")
@click.option("--drop-ffn", "dropped_ffn", multiple=True, type=int, metavar="LAYER", help="Repeatable.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="alpha_attention, slope, temperature ...")
@click.option("--corpus", metavar="TEXT", help="Text for measuring quality; by default the held-out text.")
@options.LENGTH
@click.option("--out", type=options.PATH, help="A folder that is new or empty.")
def convert(
    checkpoint: str,
    size: str,
    settings: tuple[str, ...],
    corpus: str | None,
    seq_len: int | None,
    out: Path | None,
    **switches: Any,
) -> None:
    """Change the design of a trained CHECKPOINT. Name a card or a folder; `pi-sim train --from` fine-tunes it."""
    from pi_sim.training import conversion

    plan, (source,) = conversion.parse_switches(switches, settings), resolution.resolve_models([checkpoint], [size])
    folder = out or Path("runs") / conversion.conversion_title(source, plan)
    record = conversion.convert(source, plan, folder, corpus, seq_len)
    click.echo(f"{folder}: {conversion.summarize_conversion(record)}")


@click.command()
@options.MODEL
@options.SIZE
@click.option("--seq-len", type=options.POSITIVE, help="Tokens; by default the model's context, at most 1,024.")
@click.option("--sequences", default=32, show_default=True, type=options.POSITIVE, help="Number of texts.")
@click.option("--corpus", metavar="TEXT", help="packages, stdlib, a path, or random; by default the held-out text.")
@click.option(
    "--protocol", default="crypten", show_default=True, help=f"Its domains are checked. {options.PROTOCOL_HELP}"
)
@click.option("--out", type=options.FOLDER, help="A folder for figures, SVG and PNG.")
@options.RECORD
@options.STYLE
def diagnose(
    model: str, size: str, protocol: str, out: Path | None, record: Path | None, style: Any, **text: Any
) -> None:
    """Diagnose attention, NaN, sparsity and pre-activations. Also gives ranges for fixed point."""
    from pi_sim import records
    from pi_sim.inference.diagnosis import run_diagnosis
    from pi_sim.report import diagnosis

    executable, (source,) = resolution.resolve_executable(protocol), resolution.resolve_models([model], [size])
    for path in filter(None, (record, out and out / "entropy.svg")):
        files.check_writable(path)
    with options.progress_bar("diagnosis") as advance:
        result = records.stamp(run_diagnosis(source, protocol=executable, advance=advance, **text))
    if out:
        diagnosis.write_figures(result, out)
    if record:
        records.save(record, result)
    click.echo(diagnosis.render(result, style))
