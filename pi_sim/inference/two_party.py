"""Private run on one machine: one graph priced, run between two parties, and evaluated in plaintext."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim.cost.census import Census
from pi_sim.cost.cost import load_profile
from pi_sim.cost.estimate import Estimate
from pi_sim.cost.pricing import price_sequence
from pi_sim.cost.rows import join_rows
from pi_sim.errors import UsageError, warn
from pi_sim.files import write_bytes
from pi_sim.graph.bundle import Bundle, read_bundle, write_bundle
from pi_sim.graph.capture import capture_model
from pi_sim.graph.folding import fold_weights
from pi_sim.graph.ops import Graph
from pi_sim.inference import dealing
from pi_sim.inference.answers import answer_inputs, compare_vectors
from pi_sim.inference.checks import audit_run, compare_results, plain_results, summarize_counters
from pi_sim.inference.domains import evaluate_inputs, find_halvings, join_ranges, measure_ranges, warn_of_domains
from pi_sim.inference.inputs import PIXELS, InputChoice, InputShape, RunInputs
from pi_sim.mpc import launch
from pi_sim.mpc.dealer.dealers import FIRST_PARTY, DealerSpec
from pi_sim.mpc.party import CPU, require_device
from pi_sim.mpc.rewriting import rewrite_graph
from pi_sim.network import PRESETS, Network
from pi_sim.records import RECORD_FILE, Measured, RunRecord
from pi_sim.specs import ExecutableProtocol
from pi_sim.training.evaluation import held_out_tokens, load_model_record
from pi_sim.zoo.source import ModelSource
from pi_sim.zoo.tasks import image_shape, label_names, output_start, reads_images, task_of

MAX_NETWORK_RATIO = 1.15
"""Ratio of measured to predicted seconds beyond which something else than the network took time."""


@dataclass(frozen=True, kw_only=True)
class TwoPartyRequest:
    """Inputs of a private run. Without a model the bundle alone is run, and nothing is compared with plain values."""

    protocol: ExecutableProtocol
    model: ModelSource | None = None
    input: InputChoice = field(default_factory=InputChoice)
    out: Path | None = None
    """File for the private results."""
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
    *,
    batch: int = 1,
    padded: bool = False,
) -> Bundle:
    """Capture a trained model and write its bundle for a protocol: the rewritten graph, and a file of weights.

    The weights are the server's, or shares of them for each party. The bundle has bounds of the values that the model
    computes on held-out text; raises `UsageError` if they do not fit the words of the protocol's kernels. Its graph
    reads `batch` inputs at once, if `padded` of any lengths up to `seq_len`.
    """
    dealing.check_executable(protocol)
    model = source.load()
    inputs = sample_inputs(source, model, seq_len or source.context, batch, padded, warn)
    return _write_model(out, source, model, inputs, protocol, padded, warn)


def sample_inputs(
    source: ModelSource, model: PreTrainedModel, length: int, batch: int, padded: bool, warn: Callable[[str], None]
) -> RunInputs:
    """Return held-out texts of a model, or random token ids or pixels if its checkpoint names no text.

    If they may be padded, one of them is: its mask is among the values to bound.
    """
    count, generator = batch * -(-SAMPLE_SEQUENCES // batch), torch.Generator().manual_seed(0)
    if load_model_record(source.folder):
        tokens = held_out_tokens(source.folder, count, length)
    else:
        warn(f"{source.folder} names no text; the bounds of its values are measured on random inputs.")
        if reads_images(model):
            pixels = torch.randn(count, *image_shape(model), generator=generator)
            return RunInputs({PIXELS: pixels.view(-1, batch, *pixels.shape[1:])}, count)
        tokens = torch.randint(model.config.vocab_size, (count, length), generator=generator)
    texts = [tokens[0][: max(1, length // 2)] if padded else tokens[0], *tokens[1:]]
    return replace(RunInputs.of_texts(texts, length, batch), output_start=output_start(model))


def _write_model(
    out: Path,
    source: ModelSource,
    model: PreTrainedModel,
    inputs: RunInputs,
    protocol: ExecutableProtocol,
    padded: bool,
    warn: Callable[[str], None],
) -> Bundle:
    """Write a model's bundle for the shape of inputs, with the ranges of values on them, and read it."""
    task, shape = task_of(model), next(iter(inputs.values.values())).shape
    length = source.context if reads_images(model) else shape[2]
    is_padded, output_length = padded and task not in ("causal", "output"), 1 if task == "output" else None
    captured = capture_model(model, length, shape[1], padded=is_padded, output_length=output_length)
    rewriting = rewrite_graph(captured, protocol)
    graph, weights = rewriting.graph, fold_weights(rewriting.folds, model.state_dict())
    values = inputs.shared_values(graph)
    node_ranges = measure_ranges(evaluate_inputs(graph, weights, values))
    if halvings := find_halvings([graph], [node_ranges], protocol):
        graph = rewrite_graph(captured, protocol, halvings).graph
        node_ranges = measure_ranges(evaluate_inputs(graph, weights, values))
    origin = {"model": source.name, "size": source.label, "seq_len": length, "batch": shape[1], "padded": padded}
    origin |= {"task": task, "labels": label_names(model), "output_start": inputs.output_start}
    ranges = join_ranges(node_ranges)
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
        request.input.check(request.model.folder)
    model = request.model.load() if request.model else None
    with _bundle_of(request, model, warn) as (bundle, inputs):
        estimate = estimate_bundle(bundle, protocol, request.networks, request.dealer)
        dealing.check_dealt_files(request.dealer, bundle, protocol, inputs.batches, estimate.total.offline)
        plain = plain_results(model, inputs, request.device) if model else None
        outcome = launch.run_local(
            bundle,
            protocol,
            inputs.shared_values(bundle.graph),
            port=request.port,
            timeout=request.timeout,
            network=request.network,
            dealer=request.dealer,
            device=request.device,
            progress=progress,
        )
        quality = judge_results(bundle, inputs, outcome.logits, plain, predicts_text=request.input.prompt is None)
    audit_run(bundle.graphs, protocol, outcome)
    if request.out:
        save_results(request.out, outcome.logits[: inputs.count])
    return RunRecord(
        **estimate.to_json(),
        sequences=inputs.batches,
        network=request.network.name if request.network else "none",
        dealer=request.dealer.kind,
        device=request.device,
        measured=measure_outcome(request, outcome, estimate, warn),
        **quality,
    )


def measure_outcome(
    request: TwoPartyRequest, outcome: launch.RunResult, estimate: Estimate, warn: Callable[[str], None]
) -> Measured:
    """Return the measurement beside what was predicted; warn if this machine was too busy to imitate the network."""
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
    return measured.model_copy(update={"memory_bytes": outcome.memory_bytes})


def judge_results(
    bundle: Bundle, inputs: RunInputs, private: Tensor, plain: Tensor | None, predicts_text: bool
) -> dict[str, Any]:
    """Return the fields of a record that say what the results are worth: perplexity, agreement, answers, vectors."""
    task, private = bundle.origin["task"], private[: inputs.count]
    perplexity, agreement = compare_results(plain, private, inputs, task, predicts_text)
    return {
        "perplexity": perplexity,
        "agreement": agreement,
        "answers": tuple(answer_inputs(bundle, inputs, private, plain)),
        "vectors": tuple(compare_vectors(inputs, private, plain)) if task == "vectors" else (),
    }


def save_results(path: Path, results: Tensor) -> None:
    """Write private vectors (n, d) or logits (n, ..., C) as a file of NumPy."""
    content = BytesIO()
    np.save(content, results.numpy())
    write_bytes(path, content.getvalue())


def read_bundle_inputs(choice: InputChoice, bundle: Bundle) -> RunInputs:
    """Return a user's inputs in the shape that a bundle was exported for."""
    origin, graph = bundle.origin, bundle.graph
    shape = InputShape(
        folder=bundle.folder,
        task=origin["task"],
        vocabulary=graph.vocabulary,
        context=origin["seq_len"],
        batch=origin["batch"],
        length=origin["seq_len"],
        is_bundle=True,
        padded=origin["padded"],
    )
    return replace(choice.read(shape), output_start=origin["output_start"])


@contextmanager
def _bundle_of(
    request: TwoPartyRequest, model: PreTrainedModel | None, warn: Callable[[str], None]
) -> Iterator[tuple[Bundle, RunInputs]]:
    """Yield the bundle of a request, or one that is exported for this run alone, and the inputs."""
    if request.bundle:
        bundle = _check_bundle(request, read_bundle(request.bundle))
        warn_of_domains(bundle.ranges, request.protocol, warn)
        request.input.check(bundle.folder)
        yield bundle, read_bundle_inputs(request.input, bundle)
        return
    if request.model is None or model is None:
        raise UsageError("nothing to run: give --model or --bundle.")
    source, task = request.model, task_of(model)
    shape = InputShape(
        source.folder, task, getattr(model.config, "vocab_size", 0), source.context, batch=request.input.batch
    )
    inputs = replace(request.input.read(shape), output_start=output_start(model))
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        folder = Path(scratch) / "bundle"
        yield _write_model(folder, source, model, inputs, request.protocol, inputs.is_padded, warn), inputs


def _check_bundle(request: TwoPartyRequest, bundle: Bundle) -> Bundle:
    """Refuse a bundle of another length or, by the training's record, of another model."""
    length, batch = bundle.origin["seq_len"], bundle.origin["batch"]
    if request.input.length not in (None, length) or request.input.hidden_length not in (None, length):
        raise UsageError(f"{request.bundle} was exported for {length} tokens; leave --seq-len and --hide-length out.")
    if request.input.batch not in (1, batch):
        raise UsageError(f"{request.bundle} was exported for batches of {batch}; leave --batch out.")
    if bundle.steps:
        raise UsageError(f"{request.bundle} was exported to generate text; give --generate {len(bundle.graphs)}.")
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
    origin, includes_dealer = bundle.origin, dealer.kind == FIRST_PARTY
    censuses = [Census.from_graph(graph) for graph in bundle.graphs]
    rows = join_rows(price_sequence(censuses, protocol, includes_dealer))
    return Estimate(
        model=origin["model"],
        size=origin["size"],
        protocol=protocol.name,
        seq_len=origin["seq_len"],
        batch=origin["batch"],
        rows=rows,
        embedding_and_head=censuses[0].embedding_and_head,
        networks=networks,
        generate=len(bundle.graphs) if bundle.steps else None,
    )
