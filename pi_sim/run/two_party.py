"""Private run on one machine: one graph priced, run between two parties, and evaluated in plaintext."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim.cost.census import Census
from pi_sim.cost.cost import load_profile
from pi_sim.cost.estimate import Estimate
from pi_sim.cost.pricing import price_census
from pi_sim.errors import UsageError, warn
from pi_sim.graph.bundle import Bundle, read_bundle, write_bundle
from pi_sim.graph.capture import capture_model
from pi_sim.graph.folding import fold_weights
from pi_sim.graph.ops import Graph
from pi_sim.mpc import launch
from pi_sim.mpc.dealer.dealers import FIRST_PARTY, DealerSpec
from pi_sim.mpc.party import CPU, require_device
from pi_sim.mpc.rewriting import rewrite_graph
from pi_sim.network import PRESETS, Network
from pi_sim.records import RECORD_FILE, Answer, RunRecord
from pi_sim.run import dealing
from pi_sim.run.answers import label_names, task_of, top_answers
from pi_sim.run.checks import audit_run, compare_logits, model_logits, summarize_counters
from pi_sim.run.domains import measure_ranges, warn_of_domains
from pi_sim.run.texts import TextChoice, load_text_tokenizer
from pi_sim.specs import ExecutableProtocol
from pi_sim.training.evaluation import held_out_tokens, load_model_record
from pi_sim.zoo.source import ModelSource

MAX_NETWORK_RATIO = 1.15
"""Ratio of measured to predicted seconds beyond which something else than the network took time."""


@dataclass(frozen=True, kw_only=True)
class TwoPartyRequest:
    """Inputs of a private run. Without a model the bundle alone is run, and nothing is compared with plain values."""

    protocol: ExecutableProtocol
    model: ModelSource | None = None
    seq_len: int | None = None
    sequences: int = 1
    text: TextChoice = field(default_factory=TextChoice)
    bundle: Path | None = None
    network: Network | None = None
    port: int = 0
    timeout: float = 60.0
    dealer: DealerSpec = field(default_factory=DealerSpec)
    """A dealt file is here the folder of both files that `pi-sim deal` wrote."""
    device: str = CPU
    """Device of the model and of both parties."""

    @property
    def networks(self) -> list[Network]:
        """Networks for which seconds are predicted."""
        presets = [PRESETS["lan"], PRESETS["wan"]]
        return presets if self.network is None or self.network in presets else [*presets, self.network]


SAMPLE_SEQUENCES = 4
"""Held-out sequences on which an export measures the bounds of values."""


def export_bundle(
    source: ModelSource,
    seq_len: int | None,
    out: Path,
    protocol: ExecutableProtocol,
    warn: Callable[[str], None] = warn,
) -> Bundle:
    """Capture a trained model and write its bundle for a protocol: the rewritten graph, and a file of weights.

    The weights are the server's, or shares of them for each party. The bundle has bounds of the values that the model
    computes on held-out text; raises `UsageError` if they do not fit the words of the protocol's kernels.
    """
    dealing.check_executable(protocol)
    model = source.load()
    length = seq_len or source.context
    return _write_model(out, source, model, _sample_tokens(source, model, length, warn), protocol, warn)


def _sample_tokens(source: ModelSource, model: PreTrainedModel, length: int, warn: Callable[[str], None]) -> Tensor:
    """Return held-out token ids (N, T) of a model, or random ones if its checkpoint names no text."""
    if load_model_record(source.folder):
        return held_out_tokens(source.folder, SAMPLE_SEQUENCES, length)
    warn(f"{source.folder} names no text; the bounds of its values are measured on random token ids.")
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (SAMPLE_SEQUENCES, length), generator=generator)


def _write_model(
    out: Path,
    source: ModelSource,
    model: PreTrainedModel,
    tokens: Tensor,
    protocol: ExecutableProtocol,
    warn: Callable[[str], None],
) -> Bundle:
    """Write a model's bundle for the length of tokens (N, T), with the ranges of values on them, and read it."""
    length = tokens.shape[1]
    graph, weights = rewrite_model(model, length, protocol)
    origin = {"model": source.name, "size": source.label, "seq_len": length}
    origin |= {"task": task_of(model), "labels": label_names(model)}
    ranges = measure_ranges(graph, weights, tokens)
    warn_of_domains(ranges, protocol, warn)
    write_bundle(out, graph, weights, origin, source.folder, dealing.deployment_of(protocol), ranges)
    return read_bundle(out)


def rewrite_model(
    model: PreTrainedModel, length: int, protocol: ExecutableProtocol
) -> tuple[Graph, Mapping[str, Tensor]]:
    """Return a model's graph as a protocol runs it, and the weights that it reads."""
    rewriting = rewrite_graph(capture_model(model, length), protocol)
    return rewriting.graph, fold_weights(rewriting.folds, model.state_dict())


def run_two_party(
    request: TwoPartyRequest, warn: Callable[[str], None], progress: Callable[[float], None]
) -> RunRecord:
    """Run a model between two local processes; return a record of the prediction, the measurement and the quality.

    Raises `RunError` if measured rounds or bytes differ from the predicted ones.
    """
    require_device(request.device)
    protocol = request.protocol
    dealing.check_executable(protocol)
    if request.model and not request.bundle:
        request.text.check(request.model.folder)
    model = request.model.load() if request.model else None
    with _bundle_of(request, model, warn) as (bundle, tokens):
        estimate = estimate_bundle(bundle, protocol, request.networks, request.dealer)
        dealing.check_dealt_files(request.dealer, bundle, protocol, len(tokens), estimate.total.offline)
        expected = model_logits(model, tokens, request.device) if model else None
        outcome = launch.run_local(
            bundle,
            protocol,
            tokens.unsqueeze(1),
            port=request.port,
            timeout=request.timeout,
            network=request.network,
            dealer=request.dealer,
            device=request.device,
            progress=progress,
        )
        answers = answers_of(request.text, bundle, outcome.logits, expected)
    audit_run(bundle.graph, protocol, outcome)
    machine, works = load_profile(), estimate.overall.work
    measured = summarize_counters(
        outcome,
        request.network,
        predicted=estimate.total,
        predicted_computing=machine.seconds(works, estimate.total.rounds) if machine and works else None,
    )
    ratio = measured.communication_ratio
    if ratio is not None and not 1 / MAX_NETWORK_RATIO < ratio < MAX_NETWORK_RATIO:
        warn("this machine was too busy to hold messages back precisely; repeat the run when it is not.")
    predicts_next = bundle.origin["task"] == "causal" and request.text.prompt is None
    perplexity, agreement = compare_logits(expected, outcome.logits, tokens, predicts_next)
    return RunRecord(
        **estimate.to_json(),
        sequences=len(tokens),
        network=request.network.name if request.network else "none",
        dealer=request.dealer.kind,
        device=request.device,
        measured=measured,
        perplexity=perplexity,
        answers=tuple(answers),
        agreement=agreement,
    )


def answers_of(choice: TextChoice, bundle: Bundle, private: Tensor, plain: Tensor | None) -> list[Answer]:
    """Return what the logits of a prompt's last position, or of a classified text, say."""
    task, labels = bundle.origin["task"], bundle.origin["labels"]
    if task == "labels":
        return top_answers(private[0], None if plain is None else plain[0], labels.__getitem__)
    if choice.prompt is None or task != "causal":
        return []
    decode, last = load_text_tokenizer(bundle.folder).decode, (0, -1)
    return top_answers(private[last], None if plain is None else plain[last], lambda number: decode([number]))


def text_ids(choice: TextChoice, bundle: Bundle, sequences: int) -> Tensor:
    """Return token ids (N, T) of a text, of the length that a bundle was exported for."""
    length: int = bundle.origin["seq_len"]
    _check_length(length, choice)
    context = length if choice.prompt is None else sys.maxsize
    ids = choice.token_ids(bundle.folder, bundle.graph.vocabulary, None, context, sequences)
    if ids.shape[1] != length:
        raise UsageError(f"{bundle.folder} was exported for {length} tokens, the prompt has {ids.shape[1]}.")
    return ids


def _check_length(length: int, choice: TextChoice) -> None:
    if length < 2 and choice.prompt is None:
        raise UsageError("a perplexity needs sequences of at least 2 tokens; choose a longer --seq-len.")


@contextmanager
def _bundle_of(
    request: TwoPartyRequest, model: PreTrainedModel | None, warn: Callable[[str], None]
) -> Iterator[tuple[Bundle, Tensor]]:
    """Yield the bundle of a request, or one that is exported for this run alone, and token ids (N, T)."""
    if request.bundle:
        bundle = _check_bundle(request, read_bundle(request.bundle))
        warn_of_domains(bundle.ranges, request.protocol, warn)
        request.text.check(bundle.folder)
        yield bundle, text_ids(request.text, bundle, request.sequences)
        return
    if request.model is None or model is None:
        raise UsageError("nothing to run: give --model or --bundle.")
    source = request.model
    context = source.context
    _check_length(request.seq_len or context, request.text)
    tokens = request.text.token_ids(source.folder, model.config.vocab_size, request.seq_len, context, request.sequences)
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        yield _write_model(Path(scratch) / "bundle", source, model, tokens, request.protocol, warn), tokens


def _check_bundle(request: TwoPartyRequest, bundle: Bundle) -> Bundle:
    """Refuse a bundle of another length or, by the training's record, of another model."""
    length = bundle.origin["seq_len"]
    if request.seq_len not in (None, length):
        raise UsageError(f"{request.bundle} was exported for {length} tokens; leave --seq-len out.")
    dealing.check_deployment(bundle, request.protocol)
    if request.model:
        paths = [folder / RECORD_FILE for folder in (bundle.folder, request.model.folder)]
        origins = {path.read_bytes() for path in paths if path.is_file()}
        if len(origins) != 1 and (origins or bundle.origin["model"] != request.model.name):
            raise UsageError(f"{request.bundle} was not exported from {request.model.name}; leave --model out.")
    return bundle


def estimate_bundle(
    bundle: Bundle, protocol: ExecutableProtocol, networks: list[Network], dealer: DealerSpec
) -> Estimate:
    """Price a bundle's graph, with the dealer's work only if party 0 does it."""
    census, origin = Census.from_graph(bundle.graph), bundle.origin
    return Estimate(
        model=origin["model"],
        size=origin["size"],
        protocol=protocol.name,
        seq_len=origin["seq_len"],
        rows=price_census(census, protocol, includes_dealer=dealer.kind == FIRST_PARTY),
        embedding_and_head=census.embedding_and_head,
        networks=networks,
    )
