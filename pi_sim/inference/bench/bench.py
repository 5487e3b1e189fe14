"""The whole benchmark: single operations by every kernel that a protocol chooses, truncations, and whole models."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pi_sim.cost.cost import ZERO_COST
from pi_sim.cost.pricing import OpPrice, price_op
from pi_sim.cost.rows import LAYER_PATTERN
from pi_sim.graph.bundle import Bundle, read_bundle, write_bundle
from pi_sim.graph.ops import Graph, Node
from pi_sim.inference import dealing
from pi_sim.inference.bench.kernels import BenchJob, batch_count, bench_peer, measure_truncations
from pi_sim.inference.bench.workloads import Workload, list_workloads
from pi_sim.inference.checks import audit_run, plain_results, summarize_counters
from pi_sim.inference.inputs import RunInputs
from pi_sim.inference.two_party import rewrite_model
from pi_sim.mpc import launch
from pi_sim.mpc.dealer.dealers import DEALT_FILE, FIRST_PARTY
from pi_sim.mpc.kernels import kernel_for
from pi_sim.records import BenchRecord, BenchSize, KernelTiming, ModelTiming, TruncationTest
from pi_sim.specs import ExecutableProtocol
from pi_sim.training.evaluation import held_out_tokens
from pi_sim.zoo.build import build_model
from pi_sim.zoo.source import CardModel

QUICK = BenchSize(
    tokens=8, width=16, heads=2, vocabulary=32, large_vocabulary=64,
    repetitions=1, sequences=1, truncations=10**6, models=("relu_nonorm",), whole=False,
)  # fmt: skip
"""Small sizes, for a run of seconds: counts are those of small shapes, and seconds mean little."""


@dataclass(frozen=True)
class BenchCase:
    """One operation by one kernel, its price, and the protocols that compute it so."""

    workload: Workload
    kernel: str
    price: OpPrice
    protocols: tuple[ExecutableProtocol, ...]

    def timing(self, **timings: float) -> KernelTiming:
        """Return the record of the case, without seconds for a workload that is only priced."""
        cost, workload = self.price.cost, self.workload
        return KernelTiming(
            name=workload.name, shapes=workload.shapes, kernel=self.kernel,
            protocols=tuple(protocol.name for protocol in self.protocols),
            elements=workload.elements(self.kernel), rounds=cost.rounds, bytes=cost.bytes, bytes_by_party=cost.sent,
            ahead_bytes=cost.ahead_bytes, offline_bytes=cost.offline,
            session_bytes=cost.session_bytes, **timings,
        )  # fmt: skip


def bench_cases(protocols: list[ExecutableProtocol], extent: BenchSize) -> list[BenchCase]:
    """Return all cases with their prices, derived before any party runs: a dry run must not interrupt one."""
    for protocol in protocols:
        dealing.check_executable(protocol)
    users: dict[tuple[Workload, str, OpPrice], list[ExecutableProtocol]] = {}
    for workload, protocol in product(list_workloads(extent), protocols):
        kernel = kernel_for(workload.op.name, protocol.kernels, protocol.name).name
        users.setdefault((workload, kernel, price_op(workload.op, protocol)), []).append(protocol)
    return [BenchCase(*key, tuple(protocols)) for key, protocols in users.items()]


UNUSABLE_PROTOCOLS = ("crypten",)
"""Protocols without whole models: the GELU of stock CrypTen is unusable."""
ProgressBar = Callable[[str], AbstractContextManager[Callable[[float], None]]]
"""Progress of a part of the work, by its title."""
T = TypeVar("T")


def run_bench(protocols: list[ExecutableProtocol], extent: BenchSize, bar: ProgressBar) -> BenchRecord:
    """Measure everything; raises a `RunError` where a counter differs from its prediction."""
    load_before = os.getloadavg()[0]
    operations, truncations = measure_kernels(bench_cases(protocols, extent), extent, bar)
    usable = [protocol for protocol in protocols if protocol.name not in UNUSABLE_PROTOCOLS]
    timings = measure_models(usable, extent, bar)
    return BenchRecord(
        extent=extent,
        threads=launch.threads_per_party(),
        load=(load_before, os.getloadavg()[0]),
        vector_instructions="AVX-512" if "512" in torch.backends.cpu.get_cpu_capability() else "AVX2",
        operations=operations,
        models=timings,
        truncations=truncations,
    )


def measure_kernels(
    cases: list[BenchCase], extent: BenchSize, bar: ProgressBar
) -> tuple[tuple[KernelTiming, ...], tuple[TruncationTest, ...]]:
    """Measure single operations, then truncations, between this process and another one."""
    run = [case for case in cases if case.workload.is_run]
    job = BenchJob(extent=extent, tasks=[(case.workload.name, case.protocols[0]) for case in run])
    with bench_peer(job) as party:
        operations = job.measure_operations(party, [case.price for case in run])
        timings = iter(_collect(operations, len(run), bar("operations")))
        tests = _collect(measure_truncations(party, extent), batch_count(extent), bar("truncations"))
    records = tuple(case.timing(**next(timings)) if case.workload.is_run else case.timing() for case in cases)
    return records, tuple({(test.protocol, test.bound): test for test in tests}.values())


def measure_models(protocols: list[ExecutableProtocol], extent: BenchSize, bar: ProgressBar) -> tuple[ModelTiming, ...]:
    """Measure whole models under every protocol with every dealer."""
    if not protocols:
        return ()
    names = {protocol.name for protocol in protocols}
    number = (1 + len(extent.models)) * len(protocols) * len(DEALERS) + (extent.whole and WHOLE_PROTOCOL in names)
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        timings = (measure_model(model, protocols, Path(scratch)) for model in bench_models(extent))
        return tuple(_collect(chain.from_iterable(timings), number, bar("models")))


def _collect(results: Iterable[T], number: int, bar: AbstractContextManager[Callable[[float], None]]) -> list[T]:
    """Return all `number` results, with progress."""
    collected: list[T] = []
    with bar as advance:
        for result in results:
            collected.append(result)
            advance(len(collected) / number)
    return collected


BLOCK_NAME = "one GPT-2 block"
BLOCK_CARD, TINY_SIZE = "gelu_ln", "tiny"
BLOCK_VOCABULARY = 256
"""Vocabulary of the block, small so that embedding and head cost little."""
EMBEDDING_STD = 0.5
"""Standard deviation of the block's embeddings, for variances in the domain of all kernels of norms."""
DEALERS = (FIRST_PARTY, DEALT_FILE)


@dataclass(frozen=True)
class BenchModel:
    """A model and its input tokens (N, T)."""

    name: str
    model: PreTrainedModel
    tokens: Tensor
    is_trained: bool = False


def bench_models(extent: BenchSize) -> Iterator[BenchModel]:
    """Yield the block with random weights and tokens, then shipped models on held-out text."""
    yield BenchModel(BLOCK_NAME, gpt2_block(extent), random_tokens(extent))
    if extent.whole:
        yield whole_gpt2(extent.tokens, min(2, extent.sequences))
    for name in extent.models:
        yield shipped_model(name, extent.sequences)


def random_tokens(extent: BenchSize) -> Tensor:
    """Return token ids (N, T) for the block."""
    return torch.randint(BLOCK_VOCABULARY, (extent.sequences, extent.tokens))


def shipped_model(name: str, sequences: int, length: int | None = None) -> BenchModel:
    """Return a shipped model of size tiny and held-out text, by default of the model's context."""
    source = CardModel.parse(name, TINY_SIZE)
    model = source.load()
    context = model.config.max_position_embeddings
    return BenchModel(name, model, held_out_tokens(source.folder, sequences, length or context), is_trained=True)


WHOLE_NAME, WHOLE_PROTOCOL = "GPT-2 small", "lean"
"""The largest model, which is run under one protocol alone."""


def whole_gpt2(length: int, sequences: int) -> BenchModel:
    """Return all 12 layers of GPT-2 with random weights, and random tokens."""
    card = CardModel.parse(BLOCK_CARD, "gpt2")
    torch.manual_seed(0)
    tokens = torch.randint(card.size.vocabulary, (sequences, length))
    return BenchModel(WHOLE_NAME, build_model(card.card, card.size).eval(), tokens)


def gpt2_block(extent: BenchSize) -> PreTrainedModel:
    """Return a layer of GPT-2 between an embedding and the last norm with its head."""
    block = CardModel.parse(BLOCK_CARD, "gpt2")
    dimensions = {"layers": 1, "heads": extent.heads, "width": extent.width, "context": extent.tokens}
    size = block.size.model_copy(update={**dimensions, "vocabulary": BLOCK_VOCABULARY})
    torch.manual_seed(0)
    model = build_model(block.card, size).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.mul_(EMBEDDING_STD / module.weight.std())
    return model


def measure_model(bench_model: BenchModel, protocols: list[ExecutableProtocol], scratch: Path) -> Iterator[ModelTiming]:
    """Run a model under every protocol with every dealer; a counter that differs from its price is a `RunError`."""
    model, tokens = bench_model.model, bench_model.tokens
    origin = {"model": bench_model.name, "size": TINY_SIZE, "seq_len": tokens.shape[1]}
    inputs = RunInputs.of_tokens(tokens)
    plain = plain_results(model, inputs)
    is_whole = bench_model.name == WHOLE_NAME
    for protocol in protocols:
        if is_whole and protocol.name != WHOLE_PROTOCOL:
            continue
        folder = scratch / bench_model.name / protocol.name
        graph, weights = rewrite_model(model, tokens.shape[1], protocol)
        write_bundle(folder, graph, weights, origin, scratch, dealing.deployment_of(protocol))
        loaded = read_bundle(folder)
        for dealer in DEALERS[:1] if is_whole else DEALERS:
            yield _measure_run(loaded, protocol, dealer, inputs, plain)


def _counted_nodes(graph: Graph, name: str) -> list[Node]:
    """Return the nodes whose costs are shown: of the block its layer, of GPT-2 all but embedding and head.

    The run has been audited: what was counted at every node is its price.
    """
    if name == BLOCK_NAME:
        return [node for node in graph.nodes if LAYER_PATTERN.match(node.module)]
    ends = graph.embedding_and_head() if name == WHOLE_NAME else set()
    return [node for node in graph.nodes if node.module not in ends]


def _measure_run(
    loaded: Bundle, protocol: ExecutableProtocol, dealer: str, inputs: RunInputs, plain: Tensor
) -> ModelTiming:
    """Run all sequences once; the fastest one counts."""
    bench_name = loaded.origin["model"]
    with tempfile.TemporaryDirectory(dir=loaded.folder) as scratch:
        spec = dealing.deal_ahead(loaded.folder, protocol, dealer, inputs.batches, Path(scratch) / DEALT_FILE)
        outcome = launch.run_local(loaded, protocol, inputs.values, dealer=spec)
    return time_run(loaded, protocol, dealer, outcome, _counted_nodes(loaded.graph, bench_name), plain)


def time_run(
    loaded: Bundle,
    protocol: ExecutableProtocol,
    dealer: str,
    outcome: launch.RunResult,
    nodes: list[Node],
    plain: Tensor,
) -> ModelTiming:
    """Return the seconds of a run's fastest sequence, and the cost of `nodes`; a `RunError` for a wrong counter."""
    audit_run(loaded.graphs, protocol, outcome)
    counters, fastest = summarize_counters(outcome), min(outcome.counts[0], key=lambda count: float(count["seconds"]))
    cost = sum((price_op(node.op, protocol).cost for node in nodes), ZERO_COST)
    return ModelTiming(
        model=loaded.origin["model"], protocol=protocol.name, dealer=dealer,
        rounds=cost.rounds, bytes=cost.bytes, bytes_by_party=cost.sent,
        ahead_bytes=cost.ahead_bytes, ahead_seconds=counters.ahead_seconds,
        offline_bytes=cost.offline, session_bytes=cost.session_bytes,
        seconds=fastest["seconds"], communication_seconds=fastest["communication_seconds"],
        difference=float((outcome.logits - plain).abs().max()), memory_bytes=outcome.memory_bytes,
    )  # fmt: skip
