"""Latency of private inference beside its quality, on a GPU and on the CPU, within a budget of seconds.

Models, lengths, protocols and devices in one run, the smallest first. What does not fit the budget is recorded with the
reason, and so is a run that fails.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from pi_sim.cost.pricing import price_op
from pi_sim.errors import RunError
from pi_sim.graph.bundle import read_bundle, write_bundle
from pi_sim.graph.ops import Graph
from pi_sim.inference import dealing
from pi_sim.inference.bench.bench import (
    BLOCK_NAME,
    BenchModel,
    gpt2_block,
    random_tokens,
    shipped_model,
    time_run,
    whole_gpt2,
)
from pi_sim.inference.checks import compare_results, plain_results
from pi_sim.inference.inputs import RunInputs
from pi_sim.inference.two_party import rewrite_model
from pi_sim.mpc import launch
from pi_sim.mpc.dealer.dealers import DealerSpec
from pi_sim.mpc.party import CPU
from pi_sim.records import BenchSize, LatencyRow, SkippedRun
from pi_sim.specs import ExecutableProtocol

LENGTHS = (128, 256, 512, 1024)
"""Tokens of GPT-2 small; the tiny models have a context of 128."""
QUICK_TOKENS = 16
SEQUENCES = 4
WHOLE_SEQUENCES = 2
"""The first one warms a GPU up; the fastest counts."""
MESSAGE_TIMEOUT_S = 900.0


def latency_models(quick: bool) -> Iterator[BenchModel]:
    """Yield the shipped models, then GPT-2 small by length; with `quick` short texts, and one block of GPT-2."""
    for name in BenchSize().models:
        yield shipped_model(name, SEQUENCES, QUICK_TOKENS if quick else None)
    if quick:
        extent = BenchSize(tokens=QUICK_TOKENS, sequences=WHOLE_SEQUENCES)
        yield BenchModel(BLOCK_NAME, gpt2_block(extent), random_tokens(extent))
        return
    for length in LENGTHS:
        yield whole_gpt2(length, WHOLE_SEQUENCES)


class Budget:
    """Seconds that are left, and predictions from runs of the same model, protocol and device at other lengths."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.seconds_each: dict[tuple[str, ...], float] = {}

    def refusal(self, key: tuple[str, ...], amount: int) -> str | None:
        """Return the reason why a run of this amount of work does not fit, None if it may start."""
        left, predicted = self.left, self.seconds_each.get(key, 0.0) * amount
        if left > predicted:
            return None
        return f"about {predicted:,.0f} s needed, {left:,.0f} s left" if left > 0 else "the budget was spent"

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.monotonic()

    def record(self, key: tuple[str, ...], amount: int, started: float) -> None:
        """Store how long a run took."""
        self.seconds_each[key] = (time.monotonic() - started) / amount


def measure_latency(
    protocols: list[ExecutableProtocol],
    device: str,
    budget_seconds: float,
    quick: bool,
    progress: Callable[[float], None],
) -> Iterator[LatencyRow | SkippedRun]:
    """Yield every run in order: of each model under every protocol, on the device and then on the CPU.

    Raises `RunError` where a counter differs from its price.
    """
    budget, devices = Budget(budget_seconds), tuple(dict.fromkeys((device, CPU)))
    number = len(BenchSize().models) + (1 if quick else len(LENGTHS))
    for done, model in enumerate(latency_models(quick), start=1):
        for protocol in protocols:
            yield from _measure_protocol(model, protocol, devices, budget)
        progress(done / number)


def _measure_protocol(
    bench: BenchModel, protocol: ExecutableProtocol, devices: tuple[str, ...], budget: Budget
) -> Iterator[LatencyRow | SkippedRun]:
    """Yield the runs of a model under one protocol, a run for each device."""
    graph, weights = rewrite_model(bench.model, bench.tokens.shape[1], protocol)
    amount = _amount_of_work(graph, protocol)
    with tempfile.TemporaryDirectory(prefix="pi-sim-") as scratch:
        folder = Path(scratch) / "bundle"
        for device in devices:
            case = {"device": device, "model": bench.name, "protocol": protocol.name, "seq_len": bench.tokens.shape[1]}
            key = (device, bench.name, protocol.name)
            if reason := budget.refusal(key, amount):
                yield SkippedRun.model_validate({**case, "reason": reason})
                continue
            if not folder.exists():
                origin = {"model": bench.name, "size": "", "seq_len": bench.tokens.shape[1]}
                write_bundle(folder, graph, weights, origin, Path(scratch), dealing.deployment_of(protocol))
            started = time.monotonic()
            try:
                yield _measure_device(bench, folder, protocol, device, budget.left)
            except launch.TimeLimitError:
                yield SkippedRun.model_validate({**case, "reason": "stopped at the end of the budget"})
            except RunError as error:
                yield SkippedRun.model_validate({**case, "reason": str(error), "failed": True})
            budget.record(key, amount, started)


def _amount_of_work(graph: Graph, protocol: ExecutableProtocol) -> int:
    """Return multiplications, elements and random bytes of a graph together: predictions scale with it."""
    works = [work for node in graph.nodes if (work := price_op(node.op, protocol).compute_work())]
    return max(1, sum(work.macs + work.elements + work.random for work in works))


def _measure_device(
    bench: BenchModel, folder: Path, protocol: ExecutableProtocol, device: str, limit: float
) -> LatencyRow:
    """Run a bundle on one device, and compare it with the plain model; only a trained model has a perplexity.

    Raises `TimeLimitError` after `limit` seconds.
    """
    bundle, inputs = read_bundle(folder), RunInputs.of_tokens(bench.tokens)
    outcome = launch.run_local(
        bundle,
        protocol,
        inputs.values,
        dealer=DealerSpec(),
        device=device,
        timeout=MESSAGE_TIMEOUT_S,
        limit=limit,
    )
    plain = plain_results(bench.model, inputs)
    timing = time_run(bundle, protocol, DealerSpec().kind, outcome, bundle.graph.nodes, plain)
    perplexity, agreement = compare_results(plain, outcome.logits, inputs, "causal")
    return LatencyRow(
        **timing.model_dump(),
        device=device,
        seq_len=bench.tokens.shape[1],
        sequences=inputs.count,
        perplexity=perplexity if bench.is_trained else None,
        agreement=agreement,
    )


def gpu_name() -> str | None:
    """Return the name of the first GPU, None without one."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
