"""Commands of private runs: two parties, one of two machines, bundles, dealt files and keys."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pi_sim import files, resolution
from pi_sim.cli import options
from pi_sim.errors import UsageError, warn

if TYPE_CHECKING:
    from typing import TypeVar

    from pi_sim.records import PartyRecord, RunRecord

    RecordT = TypeVar("RecordT", RunRecord, PartyRecord)

TIMEOUT = click.option(
    "--timeout", default=60.0, show_default=True, type=click.FloatRange(0.1, 86_400),
    help="Seconds without a message after which a party gives up.",
)  # fmt: skip
DEVICE = click.option(
    "--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]), help="Device of the computation."
)
SEQUENCES = "Texts to read.  [default: one of held-out text, all lines of a file]"
BATCH = click.option("--batch", default=1, show_default=True, type=options.POSITIVE, help="Inputs read at once.")


def _input_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a user's own input, instead of held-out text."""
    for option in (
        click.option("--out", type=options.FILE, help="Write the private results here, as npy: vectors or logits."),
        click.option("--image", type=options.FILE, help="An image, for a model that reads images."),
        click.option("--prompt", metavar="TEXT", help="One text to answer: by its next token, a label or a vector."),
        click.option("--text", type=options.FILE, help="A text in every line; or, with --seq-len, a text to cut."),
    ):
        command = option(command)
    return command


GENERATE = click.option("--generate", type=options.POSITIVE, metavar="N", help="Continue the prompt by N tokens.")


def _sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the choice of tokens."""
    for option in (
        click.option(
            "--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Seed of random tokens.",
        ),
        click.option(
            "--top-p", default=1.0, show_default=True, type=click.FloatRange(0, 1, min_open=True),
            help="Random tokens are those that hold this much of the probability together.",
        ),
        click.option(
            "--temperature", default=0.0, show_default=True, type=click.FloatRange(0, 100),
            help="0 takes the most probable token, more takes a random one.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _dealer_option(text: str) -> Callable[[Any], Any]:
    return click.option("--dealer", default="first-party", show_default=True, metavar="DEALER", help=text)


@click.group()
def run() -> None:
    """Run a model privately between two parties."""


@run.command("two-party")
@click.option("--model", metavar="MODEL", help="A card or a checkpoint; relu_nonorm, unless a bundle is given.")
@options.SIZE
@options.LENGTH
@options.PROTOCOL
@_input_options
@GENERATE
@_sampling_options
@click.option("--sequences", type=options.POSITIVE, help=SEQUENCES)
@BATCH
@click.option("--hide-length", type=options.POSITIVE, help="Pad every text to so many tokens; no length is told.")
@click.option("--network", default="none", show_default=True, help=f"Network to imitate. {options.NETWORK_HELP}")
@click.option("--bundle", type=options.PATH, help="Output of `pi-sim export`, instead of the weights.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="TCP port on the loopback; 0 takes a free one.")
@TIMEOUT
@_dealer_option("first-party, third-party, or the output folder of `pi-sim deal`.")
@DEVICE
@click.option("--allow-inexact", is_flag=True, help="Exit with 0 even if the private result is wrong, for studies.")
@options.RECORD
def two_party(
    model: str | None,
    size: str,
    protocol: str,
    network: str,
    dealer: str,
    seq_len: int | None,
    text: Path | None,
    prompt: str | None,
    image: Path | None,
    sequences: int | None,
    batch: int,
    hide_length: int | None,
    generate: int | None,
    temperature: float,
    top_p: float,
    seed: int,
    out: Path | None,
    allow_inexact: bool,
    record: Path | None,
    **settings: Any,
) -> None:
    """Compute what a model says of a text between two processes on this machine, each with its own shares."""
    from pi_sim.inference.checks import require_right_result
    from pi_sim.inference.generation import GenerationChoice, run_generation
    from pi_sim.inference.inputs import InputChoice
    from pi_sim.inference.two_party import TwoPartyRequest, run_two_party
    from pi_sim.mpc.sampling import Sampling

    name = model or (None if settings["bundle"] else resolution.DEFAULT_MODEL)
    request = TwoPartyRequest(
        network=None if network == "none" else resolution.resolve_networks([network])[0],
        protocol=resolution.resolve_executable(protocol),
        model=resolution.resolve_models([name], [size])[0] if name else None,
        dealer=resolution.resolve_dealer(dealer),
        input=InputChoice(text, prompt, image, seq_len, hide_length, batch, sequences),
        out=out,
        **settings,
    )
    if generate:
        choice = GenerationChoice(generate, Sampling(temperature=temperature, top_p=top_p, seed=seed))
        result = _run_and_report(
            lambda advance: run_generation(request, choice, warn, _prompt_progress(advance, generate), _print_text),
            record,
            out,
            title="reading the prompt",
        )
    else:
        result = _run_and_report(lambda advance: run_two_party(request, warn, advance), record, out)
    if not allow_inexact:
        require_right_result(result)


def _prompt_progress(advance: Callable[[float], None], tokens: int) -> Callable[[float], None]:
    """Return a function that shows how much of the prompt is read, one of `tokens` graphs: then the text shows."""
    return lambda fraction: advance(min(1.0, fraction * tokens))


def _print_text(text: str) -> None:
    """Print a piece of a continuation as it comes."""
    click.echo(text, nl=False)


def _run_and_report(
    infer: "Callable[[Callable[[float], None]], RecordT]",
    path: Path | None,
    out: Path | None,
    title: str = "private inference",
) -> "RecordT":
    """Run with a progress bar, write the record, print a summary; an unwritable path fails before the run.

    The run itself writes its results to `out`.
    """
    from pi_sim import records
    from pi_sim.report import terminal

    for output in filter(None, (path, out)):
        files.check_writable(output)
    with options.progress_bar(title) as advance:
        result = infer(advance)
    if path:
        records.save(path, result)
    if result.generation:
        click.echo()  # ends the line of the text that was printed as it came
    click.echo(terminal.summarize_run(result))
    return result


@run.command()
@click.option("--rank", required=True, type=click.Choice(["0", "1"]), help="0 is the server, 1 the client.")
@click.option("--rendezvous", required=True, metavar="HOST:PORT", help="Where the server listens and the client calls.")
@click.option("--bundle", required=True, type=options.PATH, help="With this party's share file at least.")
@options.PROTOCOL
@_input_options
@_sampling_options
@click.option("--sequences", default=1, show_default=True, type=options.POSITIVE, help="Batches, at both alike.")
@TIMEOUT
@_dealer_option("first-party, or this party's file from `pi-sim deal`.")
@click.option("--keys", type=options.PATH, help="This party's folder from `pi-sim keys`.")
@click.option("--no-tls", is_flag=True, help="Do not encrypt, though the other party is not on this machine.")
@click.option("--network", hidden=True)
@DEVICE
@options.RECORD
def party(
    rank: str,
    rendezvous: str,
    protocol: str,
    dealer: str,
    text: Path | None,
    prompt: str | None,
    image: Path | None,
    temperature: float,
    top_p: float,
    seed: int,
    out: Path | None,
    no_tls: bool,
    network: str | None,
    record: Path | None,
    **settings: Any,
) -> None:
    """Run one party of two on two machines.

    Both need the same bundle, protocol and number of sequences. The bundle's folder should not contain the other
    party's share file. The client has the text and gets the logits.
    """
    from pi_sim.inference import remote
    from pi_sim.inference.inputs import InputChoice
    from pi_sim.mpc.sampling import Sampling
    from pi_sim.mpc.transport.connection import parse_address

    if network:
        raise UsageError("two machines have a network of their own; `run two-party --network` imitates one.")
    host, port = parse_address(rendezvous)
    request = remote.PartyRequest(
        rank=int(rank),
        host=host,
        port=port,
        protocol=resolution.resolve_executable(protocol),
        dealer=resolution.resolve_dealer(dealer),
        encrypted=not no_tls,
        input=InputChoice(text, prompt, image),
        sampling=Sampling(temperature=temperature, top_p=top_p, seed=seed),
        out=out,
        **settings,
    )
    _run_and_report(lambda advance: remote.run_remote_party(request, warn, advance, _print_text), record, out)


@click.command()
@click.option("--out", required=True, type=options.PATH, help="A folder that is new or empty.")
def keys(out: Path) -> None:
    """Make keys and certificates for a trial of `run party`. Each party gets one pair."""
    from pi_sim.mpc.transport import tls

    tls.make_test_certificates(out)
    click.echo(f"{out}: server for party 0, client for party 1\ntake each to its machine over a private channel")


@click.command()
@options.MODEL
@options.SIZE
@options.LENGTH
@options.PROTOCOL
@BATCH
@click.option("--padded", is_flag=True, help="Read texts of any lengths up to --seq-len; the server learns none.")
@click.option(
    "--generate", type=options.POSITIVE, metavar="N", help="Continue prompts of --seq-len tokens by N tokens."
)
@click.option("--out", required=True, type=options.PATH, help="A folder that is new or empty.")
def export(
    model: str,
    size: str,
    seq_len: int | None,
    protocol: str,
    batch: int,
    padded: bool,
    generate: int | None,
    out: Path,
) -> None:
    """Write a trained model for a protocol, as a graph and its weights.

    Where the protocol shares weights, each party gets one of two files of shares. Otherwise the server alone gets a
    file.
    """
    from pi_sim.inference.two_party import export_bundle

    executable = resolution.resolve_executable(protocol)
    source = resolution.resolve_models([model], [size])[0]
    if generate and (seq_len is None or batch > 1 or padded):
        raise UsageError("--generate continues one prompt; give its tokens as --seq-len, not --batch or --padded.")
    with options.announced_wait("capturing the model"):
        if generate and seq_len:
            from pi_sim.inference.generation import export_generation

            export_generation(source, seq_len, generate, out, executable)
        else:
            export_bundle(source, seq_len, out, executable, batch=batch, padded=padded)
    if executable.weights == "server":
        click.echo(f"{out}: graph.json, and in party0.safetensors\nthe weights, for the server alone")
    else:
        click.echo(f"{out}: graph.json, and the weights' shares in\nparty0.safetensors and party1.safetensors")


@click.command()
@click.option("--bundle", required=True, type=options.PATH, help="Output of `pi-sim export`.")
@options.PROTOCOL
@click.option("--sequences", default=1, show_default=True, type=options.POSITIVE, help="Number of sequences.")
@click.option("--out", required=True, type=options.PATH, help="A new folder.")
def deal(bundle: Path, protocol: str, sequences: int, out: Path) -> None:
    """Deal the correlated randomness of a graph ahead of time. Each party gets one file, to be used once.

    The dealer can open everything that is computed with it, so neither party should deal.
    """
    from pi_sim.inference import dealing

    with options.progress_bar("dealing") as advance:
        server, client = dealing.write_dealt_files(
            bundle, resolution.resolve_executable(protocol), sequences, out, advance
        )
    click.echo(f"{out}: to be used once\n{server:,} bytes in party0.dealing, {client:,} in party1.dealing")
