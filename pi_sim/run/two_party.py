"""A private run: the same graph priced, run between two parties, and read in the clear."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.cost.census import Census
from pi_sim.cost.estimate import Estimate
from pi_sim.cost.pricing import price_census
from pi_sim.errors import UsageError
from pi_sim.graph import bundle
from pi_sim.graph.bundle import Bundle
from pi_sim.graph.capture import capture_model
from pi_sim.graph.ops import Graph
from pi_sim.mpc import launch
from pi_sim.mpc.dealer.dealers import FIRST_PARTY, DealerSpec
from pi_sim.mpc.party import CPU, require_device
from pi_sim.network import PRESETS, Network
from pi_sim.records import RunRecord
from pi_sim.run import dealing
from pi_sim.run.accuracy import compare_logits, domain_warnings, model_logits
from pi_sim.run.audit import audit_run, summarize_counters
from pi_sim.run.dealing import require_executable_protocol
from pi_sim.training.evaluation import check_recorded_corpus, held_out_tokens
from pi_sim.zoo.build import checkpoint_folder, load_model
from pi_sim.zoo.source import size_label

MAX_NETWORK_RATIO = 1.15
"""Beyond this multiple of the predicted seconds, something else than the network took time."""


@dataclass(frozen=True)
class TwoPartyRequest:
    """What is to be run. Without a model the bundle alone is run, and nothing is compared with plain values."""

    model: str | None
    size: str
    protocol: str
    seq_len: int | None = None
    sequences: int = 1
    bundle: Path | None = None
    network: Network | None = None
    port: int = 0
    timeout: float = 60.0
    dealer: str = FIRST_PARTY
    """first-party, third-party, or the folder that `pi-sim deal` wrote."""
    device: str = CPU
    """Where the model and both parties compute."""

    @property
    def networks(self) -> list[Network]:
        """The networks that seconds are predicted for."""
        named = [PRESETS["lan"], PRESETS["wan"]]
        return named if self.network is None or self.network in named else [*named, self.network]

    @property
    def dealer_spec(self) -> DealerSpec:
        """The dealer that was named."""
        return DealerSpec.parse(self.dealer)


def export_bundle(model: str, size: str, seq_len: int | None, out: Path) -> Bundle:
    """Capture a trained model and write its bundle: the graph, and a file of weight shares for each party."""
    return _write_bundle(load_model(model, size), model, size, seq_len, out)


def _write_bundle(loaded: PreTrainedModel, model: str, size: str, seq_len: int | None, out: Path) -> Bundle:
    length = seq_len or loaded.config.max_position_embeddings
    origin = {"model": model, "size": size_label(model, size), "seq_len": length}
    bundle.write_bundle(out, capture_model(loaded, length), loaded.state_dict(), origin, checkpoint_folder(model, size))
    return bundle.read_bundle(out)


def run_two_party(
    request: TwoPartyRequest, warn: Callable[[str], None], progress: Callable[[float], None]
) -> RunRecord:
    """Run between two local processes; the record has the keys of an estimate and what was measured beside them.

    Raises `RunError` where measured rounds or bytes part from the predicted ones.
    """
    require_device(request.device)
    protocol = require_executable_protocol(request.protocol)
    model = load_model(request.model, request.size) if request.model else None
    with _bundle_for(request, model) as opened:
        predicted = estimate_bundle(opened, protocol, request.networks, request.dealer_spec)
        dealing.check_dealt_files(request.dealer_spec, opened, protocol, request.sequences, predicted.total.offline)
        tokens = held_out_ids(opened, request.sequences)
        expected = _reference_logits(request, model, opened.graph, protocol, tokens, warn) if model else None
        outcome = launch.run_local(
            opened,
            protocol,
            tokens.unsqueeze(1),
            port=request.port,
            timeout=request.timeout,
            network=request.network,
            dealer=request.dealer_spec,
            device=request.device,
            progress=progress,
        )
    audit_run(opened.graph, protocol, outcome)
    found = summarize_counters(outcome, request.network)
    if not 1 / MAX_NETWORK_RATIO < (found.communication_ratio or 1.0) < MAX_NETWORK_RATIO:
        warn("this machine was too busy to hold messages back precisely; repeat the run when it is not.")
    perplexity, agreement = compare_logits(expected, outcome.logits, tokens)
    return RunRecord(
        **predicted.to_json(),
        sequences=request.sequences,
        network=request.network.name if request.network else "none",
        dealer=request.dealer_spec.kind,
        device=request.device,
        measured=found,
        perplexity=perplexity,
        agreement=agreement,
    )


def held_out_ids(opened: Bundle, sequences: int) -> Tensor:
    """Token ids (N, T) of a bundle's length that its model has not been trained on."""
    length: int = opened.origin["seq_len"]
    if length < 2:
        raise UsageError("a perplexity needs sequences of at least 2 tokens; choose a longer --seq-len.")
    return held_out_tokens(opened.folder, sequences, length)


@contextmanager
def _bundle_for(request: TwoPartyRequest, model: PreTrainedModel | None) -> Iterator[Bundle]:
    """The bundle that was given, or one exported for this run alone."""
    if request.bundle:
        yield _check_bundle(request, bundle.read_bundle(request.bundle))
        return
    if request.model is None or model is None:
        raise UsageError("nothing to run: give --model or --bundle.")
    check_recorded_corpus(checkpoint_folder(request.model, request.size))
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        yield _write_bundle(model, request.model, request.size, request.seq_len, Path(scratch) / "bundle")


def _check_bundle(request: TwoPartyRequest, opened: Bundle) -> Bundle:
    """Refuse a bundle of another length or, by the training's record, of another model."""
    length = opened.origin["seq_len"]
    if request.seq_len not in (None, length):
        raise UsageError(f"{request.bundle} was exported for {length} tokens; leave --seq-len out.")
    check_recorded_corpus(opened.folder)
    if request.model:
        records = [folder / "record.json" for folder in (opened.folder, checkpoint_folder(request.model, request.size))]
        if len({path.read_bytes() for path in records if path.is_file()}) != 1:
            raise UsageError(f"{request.bundle} was not exported from {request.model}; leave --model out.")
    return opened


def estimate_bundle(
    opened: Bundle, protocol: specs.ExecutableProtocol, networks: list[Network], dealer: DealerSpec
) -> Estimate:
    """The estimate of a bundle's graph, with this dealer."""
    counted, origin = Census.from_graph(opened.graph), opened.origin
    rows = price_census(counted, protocol, includes_dealer=dealer.kind == FIRST_PARTY)
    return Estimate(
        origin["model"], origin["size"], protocol.name, origin["seq_len"], rows, counted.embedding_and_head, networks
    )


def _reference_logits(
    request: TwoPartyRequest,
    model: PreTrainedModel,
    graph: Graph,
    protocol: specs.ExecutableProtocol,
    tokens: Tensor,
    warn: Callable[[str], None],
) -> Tensor:
    """The plain logits (N, T, V); warns of kernels that leave their domain."""
    for sentence in domain_warnings(graph, model, protocol, tokens):
        warn(sentence)
    return model_logits(model, tokens, request.device)
