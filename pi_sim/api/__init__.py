"""Python interface: the commands of pi-sim as functions, whose results have data frames and show in notebooks.

Importing this module needs neither torch nor pandas. Arguments have the names of the command line's options, in the
plural where several values may be given. What the command line refuses raises a `UsageError` with its sentence.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pi_sim.api.results import Comparison, Listing, PrivateRun, SweepResult
from pi_sim.cost.estimate import Estimate, estimate_model
from pi_sim.errors import UsageError
from pi_sim.resolution import (
    DEFAULT_MODEL,
    DEFAULT_MODELS,
    DEFAULT_NETWORKS,
    check_counts,
    is_module,
    list_names,
    resolve_dealer,
    resolve_executable,
    resolve_machine,
    resolve_models,
    resolve_networks,
    resolve_protocols,
)
from pi_sim.specs.toml import validate_table

if TYPE_CHECKING:
    from torch import nn

    from pi_sim.cost.cost import Machine
    from pi_sim.cost.modules import ExampleInputs
    from pi_sim.inference.two_party import TwoPartyRequest
    from pi_sim.records import RunRecord
    from pi_sim.resolution import ModelName, NetworkName, OneOrMany, ProtocolName
    from pi_sim.zoo.source import ModelSource

MAX_TIMEOUT = 86_400


def estimate(
    model: "ModelName | nn.Module" = DEFAULT_MODEL,
    example_inputs: "ExampleInputs | None" = None,
    protocol: "ProtocolName" = "crypten",
    networks: "OneOrMany[NetworkName]" = DEFAULT_NETWORKS,
    *,
    size: str | Path = "tiny",
    seq_len: int | None = None,
    batch: int = 1,
    past: int | None = None,
    prompt_len: int | None = None,
    generate: int | None = None,
    inner: bool = False,
    machine: "str | Path | Machine | None" = None,
) -> Estimate:
    """Price one inference of a model under a protocol: rounds, bytes and seconds, without running it.

    With `prompt_len` and `generate` it is a prompt and the tokens behind it, all together.

    `model` is a card's or a public model's name, the path of a card, a config or a checkpoint, a config of
    transformers, or a torch module, which may live on the meta device. A module that is not of transformers needs
    `example_inputs`: a tensor, a tuple of positional arguments or a dict of named ones. Its weights, real numbers and
    integers that an embedding looks up are secret, of which only shapes are read; other integers, booleans and buffers
    are public, with their values. Everything that it returns is opened to the client.

    Raises `UsageError`, which names the operation, the module and the file to edit, for what cannot be expressed or has
    no price.

    >>> pi_sim.estimate(torch.nn.Linear(768, 3072), torch.zeros(1, 128, 768)).total
    Cost(rounds=2, sent=(22806528, 19660800), offline=3145728, serial=22806528, ahead=(0, 0), session=(0, 0))
    """
    check_counts(seq_len=seq_len, batch=batch, past=past, prompt_len=prompt_len, generate=generate)
    (card,), links = resolve_protocols([protocol]), resolve_networks(networks)
    scenario: dict[str, Any] = {"seq_len": seq_len, "batch": batch, "past": past, "inner": inner}
    scenario["machine"] = resolve_machine(machine)
    if is_module(model):
        from pi_sim.cost.modules import estimate_module

        return estimate_module(model, example_inputs, card, links, **scenario)
    if example_inputs is not None:
        raise UsageError("example_inputs are those of a torch module; give seq_len and batch for any other model.")
    (source,) = resolve_models([model], [size])
    return estimate_model(source, card, networks=links, **scenario, prompt_len=prompt_len, generate=generate)


def compare(
    *models: "ModelName | Estimate",
    protocols: "OneOrMany[ProtocolName]" = "crypten",
    networks: "OneOrMany[NetworkName]" = DEFAULT_NETWORKS,
    size: str | Path = "tiny",
    seq_len: int | None = None,
    batch: int = 1,
    past: int | None = None,
    prompt_len: int | None = None,
    generate: int | None = None,
    inner: bool = False,
    machine: "str | Path | Machine | None" = None,
) -> Comparison:
    """Price models or protocols side by side, with ratios to the first.

    Name two models, or two protocols. An estimate, such as that of a module, may stand in place of a model; it keeps
    its protocol. Raises `UsageError` where lengths differ.
    """
    from pi_sim.report.estimates import check_comparable

    check_counts(seq_len=seq_len, batch=batch, past=past, prompt_len=prompt_len, generate=generate)
    cards, links, profile = resolve_protocols(protocols), resolve_networks(networks), resolve_machine(machine)
    scenario: dict[str, Any] = {"batch": batch, "past": past, "inner": inner, "machine": profile}
    scenario |= {"prompt_len": prompt_len, "generate": generate}
    estimates: list[Estimate] = []
    for model in models:
        if isinstance(model, Estimate):
            estimates.append(replace(model, networks=links))
        else:
            (source,) = resolve_models([model], [size])
            estimates += [estimate_model(source, card, seq_len, links, **scenario) for card in cards]
    return Comparison(check_comparable(estimates))


def sweep(
    models: "OneOrMany[ModelName]" = DEFAULT_MODELS,
    *,
    sizes: "OneOrMany[str | Path]" = "tiny",
    seq_lens: "OneOrMany[int]" = (),
    batches: "OneOrMany[int]" = 1,
    pasts: "OneOrMany[int]" = (),
    inner: bool = False,
    protocols: "OneOrMany[ProtocolName]" = "crypten",
    networks: "OneOrMany[NetworkName]" = DEFAULT_NETWORKS,
    machine: "str | Path | Machine | None" = None,
    records: "OneOrMany[str | Path]" = (),
    out: str | Path | None = None,
) -> SweepResult:
    """Price every combination of models, sizes, lengths, batches, protocols and networks.

    A combination without a price has a row with the reason. Perplexities are those of the trainings whose records lie
    in the folders `records`, by default those that ship with pi-sim and reports/records. `out` is a .csv or .parquet
    file that grows row by row; rows that it already has are not priced again.
    """
    from pi_sim.grid.sweep import Sweep, list_scenarios, make_price_tables
    from pi_sim.grid.table import ResumableCsv, open_table
    from pi_sim.report.perplexities import known_perplexities

    axes = {"lengths": list_names(seq_lens), "batches": list_names(batches), "pasts": list_names(pasts)}
    check_counts(seq_lens=axes["lengths"], batches=axes["batches"], pasts=axes["pasts"])
    sources = resolve_models(models, sizes)
    grid = Sweep(
        scenarios=list_scenarios(sources, inner=inner, **axes),
        price_tables=make_price_tables(resolve_protocols(protocols)),
        networks=resolve_networks(networks),
        machine=resolve_machine(machine),
        perplexities=known_perplexities([Path(folder) for folder in list_names(records)], sources),
    )
    if not (grid.scenarios and grid.price_tables and grid.networks):
        raise UsageError("a sweep needs a model, a size, a protocol and a network; one of these lists is empty.")
    with open_table(Path(out)) if out else nullcontext(ResumableCsv(lambda text: None)) as table:
        return SweepResult(grid.run(table, lambda fraction: None))


def run(
    model: "str | Path | ModelSource | None" = None,
    text: "str | Sequence[str] | Path | None" = None,
    *,
    image: str | Path | None = None,
    protocol: "ProtocolName" = "crypten",
    network: "NetworkName | None" = None,
    size: str | Path = "tiny",
    seq_len: int | None = None,
    sequences: int | None = None,
    batch: int = 1,
    hide_length: int | None = None,
    bundle: str | Path | None = None,
    dealer: str | Path = "first-party",
    device: str = "cpu",
    timeout: float = 60.0,
    allow_inexact: bool = False,
) -> PrivateRun:
    """Compute what a model says of a text between two processes on this machine, each with its own shares.

    `text` is one text to answer, a list of texts, or the `Path` of a file with a text in every line, which `seq_len`
    cuts into sequences instead; without text or `image` it is held-out text of the model's training. `network` is one
    to imitate. Warnings go to Python's `warnings`. Raises a `RunError` if measured rounds or bytes differ from the
    predicted ones, or, unless `allow_inexact`, if the private result is wrong.
    """
    check_counts(seq_len=seq_len, sequences=sequences, batch=batch, hide_length=hide_length)
    shape: dict[str, Any] = {"length": seq_len, "hidden_length": hide_length, "batch": batch, "sequences": sequences}
    choice = {**_text_input(text), "image": Path(image) if image else None, **shape}
    request = _make_request(model, size, choice, protocol, network, bundle, dealer, device, timeout)

    def run_request(request: "TwoPartyRequest") -> "RunRecord":
        from pi_sim.inference.two_party import run_two_party

        return run_two_party(request, _warn, lambda fraction: None)

    return _read_run(run_request, request, allow_inexact)


def generate(
    model: "str | Path | ModelSource | None" = None,
    prompt: str | None = None,
    tokens: int = 16,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    on_text: Callable[[str], None] = lambda text: None,
    protocol: "ProtocolName" = "crypten",
    network: "NetworkName | None" = None,
    size: str | Path = "tiny",
    seq_len: int | None = None,
    bundle: str | Path | None = None,
    dealer: str | Path = "first-party",
    device: str = "cpu",
    timeout: float = 60.0,
    allow_inexact: bool = False,
) -> PrivateRun:
    """Continue a prompt by tokens between two processes on this machine; the client alone chooses each token.

    Temperature 0 takes the most probable token, more a random one of `seed`, among those that hold `top_p` of the
    probability. `on_text` gets the text as it comes. Without a prompt it continues the start of held-out text,
    `seq_len` tokens of it. Raises as `run` does.
    """
    from pi_sim.inference.generation import GenerationChoice, run_generation
    from pi_sim.mpc.sampling import Sampling

    check_counts(tokens=tokens, seq_len=seq_len)
    settings = {"temperature": temperature, "top_p": top_p, "seed": seed}
    choice = GenerationChoice(tokens, validate_table(Sampling, settings, "sampling"))
    text = {"prompt": prompt, "length": None if prompt else seq_len}
    request = _make_request(model, size, text, protocol, network, bundle, dealer, device, timeout)
    return _read_run(
        lambda request: run_generation(request, choice, _warn, lambda fraction: None, on_text), request, allow_inexact
    )


def _make_request(
    model: "str | Path | ModelSource | None",
    size: str | Path,
    choice: dict[str, Any],
    protocol: "ProtocolName",
    network: "NetworkName | None",
    bundle: str | Path | None,
    dealer: str | Path,
    device: str,
    timeout: float,
) -> "TwoPartyRequest":
    """Return the request of a run for the fields of an `InputChoice`."""
    from pi_sim.inference.inputs import InputChoice
    from pi_sim.inference.two_party import TwoPartyRequest

    if not (isinstance(timeout, int | float) and 0 < timeout <= MAX_TIMEOUT):
        raise UsageError(f"timeout is {timeout!r}; give seconds, more than 0 and up to {MAX_TIMEOUT:,}.")
    name = model or (None if bundle else DEFAULT_MODEL)
    return TwoPartyRequest(
        protocol=resolve_executable(protocol),
        model=resolve_models([name], [size])[0] if name else None,
        input=InputChoice(**choice),
        bundle=Path(bundle) if bundle else None,
        network=resolve_networks(network)[0] if network not in (None, "none") else None,
        timeout=timeout,
        dealer=resolve_dealer(dealer),
        device=device,
    )


def _read_run(
    run_request: "Callable[[TwoPartyRequest], RunRecord]", request: "TwoPartyRequest", allow_inexact: bool
) -> PrivateRun:
    """Run, read the results, and refuse a wrong one."""
    import numpy as np

    from pi_sim.inference.checks import require_right_result

    with TemporaryDirectory(prefix="pi-sim-") as folder:
        out = Path(folder) / "outputs.npy"
        record = run_request(replace(request, out=out))
        outputs = np.load(out)
    if not allow_inexact:
        require_right_result(record)
    return PrivateRun(record, outputs)


def _text_input(text: "str | Sequence[str] | Path | None") -> dict[str, Any]:
    """Return the field of an `InputChoice` for a text, texts or a file."""
    if text is None:
        return {}
    if isinstance(text, str | Path):
        return {"prompt" if isinstance(text, str) else "text": text}
    lines = tuple(text) if isinstance(text, Iterable) else ()
    if not lines or not all(isinstance(line, str) for line in lines):
        raise UsageError(f"text is {text!r}; give a string, a list of strings or a Path.")
    return {"lines": lines}


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)


def models() -> Listing:
    """List the models: designs with their norm and activation, the sizes with trained weights, and public models."""
    from pi_sim.report.terminal import list_designs, list_weights
    from pi_sim.zoo.source import list_configs

    designs, weights = list_designs(), list_weights()
    rows: list[dict[str, Any]] = []
    for design in designs:
        trained = [row for row in weights if row["model"] == design["model"]]
        sizes = ", ".join(row["size"] for row in trained)
        perplexity = float(trained[0]["perplexity"]) if trained else None
        rows.append({"name": design.pop("model"), **design, "trained": sizes, "perplexity": perplexity})
    public = [{"name": name} for name in list_configs()]
    return Listing(f"{len(rows)} designs and {len(public)} public models", [*rows, *public])


def protocols() -> Listing:
    """List the protocols: what they assume, where they come from, and whether prices are derived or declared."""
    from pi_sim.cost.pricing import protocol_names
    from pi_sim.report.terminal import protocol_header

    rows = [protocol_header(protocol) for protocol in resolve_protocols(protocol_names())]
    return Listing(f"{len(rows)} protocols", rows)


def networks() -> Listing:
    """List the named networks, each with its source."""
    from pi_sim.report.terminal import network_rows

    return Listing(f"{len(rows := network_rows())} networks", rows)
