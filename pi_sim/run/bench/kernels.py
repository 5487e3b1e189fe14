"""Benchmark of kernels between two parties over a real connection: `pi-sim bench`.

Both parties go through the same steps at once. An operation is counted and audited first, then timed with the dealer's
work and without it: the correlated randomness is then in memory before the kernel requests it. After the operations,
many products are truncated; the wrong ones are counted. The second party is `python -m pi_sim.run.bench.kernels`.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from pi_sim import specs
from pi_sim.cost.cost import Cost
from pi_sim.cost.pricing import OpPrice
from pi_sim.errors import RunError
from pi_sim.graph.bundle import PRECISION, to_fixed_point
from pi_sim.graph.ops import Op
from pi_sim.mpc import backend, worker
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.dealer.prg import SEED_BYTES, AesCtrPrg
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.executor import apply_op, fixed_operand
from pi_sim.mpc.primitives.beaver import open_weight_shares
from pi_sim.mpc.runtime import Runtime
from pi_sim.mpc.transport.link import Link
from pi_sim.records import BenchSize, TruncationTest
from pi_sim.run.bench.workloads import Workload, draw_operands, evaluate_reference, list_workloads
from pi_sim.run.peer import PeerJob, call_party, connected_party, peer_process
from pi_sim.specs import ExecutableProtocol

CorrelationRequest = tuple[Correlation, tuple[int, ...]]
"""A requested correlation, and the ids of the persistent masks that it depends on."""
PartShares = tuple[list[Tensor], list[Tensor]]


class LoggingSource(Source):
    """Source that passes on another one's shares and logs the requests."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.own_prg)
        self.source = source
        self.requests: list[CorrelationRequest] = []

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        return self.source.persistent_mask(part)

    def _shares(self, correlation: Correlation, mask_ids: tuple[int, ...]) -> PartShares:
        self.requests.append((correlation, mask_ids))
        return _split_parts(correlation, self.source.deal(correlation, *mask_ids))


class PreloadedSource(Source):
    """Source with fresh shares for logged requests, all of them in memory."""

    def __init__(self, source: Source, requests: list[CorrelationRequest]) -> None:
        super().__init__(source.own_prg)
        self.ready = deque((correlation, source.deal(correlation, *mask_ids)) for correlation, mask_ids in requests)

    def _shares(self, correlation: Correlation, mask_ids: tuple[int, ...]) -> PartShares:
        expected, shares = self.ready.popleft()
        assert expected == correlation
        return _split_parts(correlation, shares)


def _split_parts(correlation: Correlation, shares: tuple[Tensor, ...]) -> PartShares:
    """Return the shares of the random parts, and those of the derived parts."""
    number = len(correlation.random_parts)
    return list(shares[:number]), list(shares[number:])


@dataclass(frozen=True)
class BenchParty:
    """A party's link and its source of correlated randomness; party 0 plays the dealer."""

    link: Link
    source: Source

    @contextmanager
    def protocol_context(self, card: ExecutableProtocol, source: Source | None = None) -> Iterator[Runtime]:
        """Yield a runtime for a protocol, with correlated randomness from `source`."""
        with Runtime.running(self.link, source or self.source, card) as rt:
            yield rt

    def share_of(self, ring: Tensor, mask: Tensor) -> Tensor:
        """Return this party's share of values that both know, under a mask that both know."""
        return mask if self.link.rank else ring - mask

    def reveal(self, share: Tensor) -> Tensor:
        """Open a value of which each party holds a share."""
        value: Tensor = self.link.all_reduce(share)
        return value

    def time_both(self, run: Callable[[], object]) -> float:
        """Return the seconds from the common start until both parties are done."""
        self._synchronise()
        started = time.perf_counter()
        run()
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        self.link.all_reduce(torch.zeros(1, dtype=torch.long))

    def count_both(self, rt: Runtime, run: Callable[[], object]) -> Tensor:
        """Run, and return the increments of both parties' counters (2, 7), the same at both."""
        before = self._read_counters(rt)
        run()
        increments = self._read_counters(rt) - before
        rows = torch.zeros(2, len(increments), dtype=torch.long)
        rows[self.link.rank] = increments
        return self.reveal(rows)

    def _read_counters(self, rt: Runtime) -> Tensor:
        link = self.link
        own, crypten = (link.rounds, link.sent, link.received), (link.comm_rounds, link.comm_bytes)
        return torch.tensor([*own, *crypten, rt.source.offline_bytes, rt.requested_bytes])


def check_counters(title: str, predicted: Cost, counters: Tensor) -> None:
    """Raise a `RunError` if counters (2, 7) differ from the price, or if link, CrypTen and dealer disagree."""
    rows = counters.tolist()
    for own, peer in zip(rows, reversed(rows), strict=True):
        rounds, sent, received, crypten_rounds, crypten_bytes, offline, requested = own
        measured = Cost(rounds, max(sent, peer[1]), offline)
        if measured != predicted:
            raise RunError(
                f"{title}: predicted were {_describe_cost(predicted)}; counted were {_describe_cost(measured)}."
            )
        if (crypten_rounds, crypten_bytes, requested) != (rounds, sent + received, offline) or received != peer[1]:
            raise RunError(f"{title}: the counters of the link, of CrypTen and of the dealer disagree: {rows}.")


def _describe_cost(cost: Cost) -> str:
    return f"{cost.rounds} rounds, {cost.bytes} bytes and {cost.offline} bytes offline"


Timings = dict[str, float]
"""Seconds with the dealer's work and without it, and the max error of the result."""


def measure_kernel(
    end: BenchParty, workload: Workload, card: ExecutableProtocol, price: OpPrice | None, repetitions: int
) -> Timings:
    """Count and time one operation; a `RunError` if the counters differ from the price, which party 0 knows."""
    op, log, results = workload.op, LoggingSource(end.source), list[Any]()
    plain = draw_operands(workload.operands)
    with end.protocol_context(card, log) as rt:
        shared = _share_operands(end, rt, workload, card, plain)
        counters = end.count_both(rt, lambda: results.append(apply_op(rt, op, shared, card)))
        error = _max_error(end, workload, results.pop(), plain)
    if price:
        check_counters(f"{op} under {card.name}", price.cost, counters)

    def seconds(dealt: bool) -> float:
        source = PreloadedSource(end.source, log.requests) if dealt else end.source
        with end.protocol_context(card, source) as rt:
            return end.time_both(lambda: apply_op(rt, op, shared, card))

    total, online = (min(seconds(dealt) for _ in range(repetitions)) for dealt in (False, True))
    return {"seconds": total, "online_seconds": online, "error": error}


def _share_operands(
    end: BenchParty, rt: Runtime, workload: Workload, card: ExecutableProtocol, plain: list[Tensor]
) -> list[Any]:
    """Return this party's shares of the operands; a fixed weight is opened under its mask, as at a session's start."""
    op, masks = workload.op, AesCtrPrg(bytes(SEED_BYTES))
    pairs = zip(plain, op.secret, strict=True)
    operands: list[Any] = [_share_operand(end, value, masks) if secret else value for value, secret in pairs]
    index = fixed_operand(op, card)
    if index is not None:
        operands[index] = open_weight_shares(rt, [operands[index].share])[0]
    return operands


def _share_operand(end: BenchParty, value: Tensor, masks: AesCtrPrg) -> Any:
    """Return this party's share: reals in fixed point, one-hot tokens as plain integers."""
    real = value.is_floating_point()
    (mask,) = masks.draw(TensorSpec(tuple(value.shape)))
    return backend.fixed_point_tensor(end.share_of(to_fixed_point(value) if real else value, mask), None if real else 0)


def _max_error(end: BenchParty, workload: Workload, result: Any, plain: list[Tensor]) -> float:
    """Return the max error of the result against the plaintext one in double precision."""
    op = workload.op
    expected = evaluate_reference(workload, plain)
    share = _client_value(op, result) if op.name == "reveal" else result.share
    return float((end.reveal(share).double() / 2**PRECISION - expected).abs().max())


def _client_value(op: Op, value: Tensor | None) -> Tensor:
    """Return the client's plain value as a share; the server has none."""
    return torch.zeros(op.shapes[0], dtype=torch.long) if value is None else to_fixed_point(value)


TRUNCATION_PROTOCOLS = ("crypten", "lean")
BATCH_ELEMENTS = 2**20
MAX_UNITS_OFF = 2
"""Error of a correct product in units of the last place: local truncation of each share errs by 2, lean by 1."""


def batch_count(extent: BenchSize) -> int:
    """Return the number of batches of `measure_truncations`."""
    return len(extent.bounds) * len(TRUNCATION_PROTOCOLS) * -(-extent.truncations // BATCH_ELEMENTS)


def measure_truncations(end: BenchParty, extent: BenchSize) -> Iterator[TruncationTest]:
    """Yield the running result after each batch of products, for every bound and protocol."""
    number = extent.truncations
    for bound, protocol in product(extent.bounds, TRUNCATION_PROTOCOLS):
        card, values = specs.load_executable_protocol(protocol), AesCtrPrg(bytes(SEED_BYTES))
        result = TruncationTest(protocol=protocol, kernel=card.kernels["multiply"], bound=bound)
        while result.number < number:
            batch = _draw_batch(values, bound, min(BATCH_ELEMENTS, number - result.number))
            result = _measure_batch(result, end, card, batch)
            yield result


def _draw_batch(values: AesCtrPrg, bound: int, length: int) -> list[Tensor]:
    """Draw two factors, uniform from -bound to bound with 16 bits of fraction, and a mask for each."""
    x, y, *masks = values.draw(*[TensorSpec((length,))] * 4)
    unit = 2**PRECISION
    return [*((factor & (2 * bound * unit - 1)) - bound * unit for factor in (x, y)), *masks]


def _measure_batch(
    result: TruncationTest, end: BenchParty, card: ExecutableProtocol, batch: list[Tensor]
) -> TruncationTest:
    """Multiply between the parties, compare with the product of the plain integers, and add to the result."""
    x, y, *masks = batch
    op = Op("multiply", (tuple(x.shape), tuple(y.shape)), (True, True))
    with end.protocol_context(card) as rt:
        shared = [
            backend.fixed_point_tensor(end.share_of(value, mask)) for value, mask in zip((x, y), masks, strict=True)
        ]
        truncated = end.reveal(apply_op(rt, op, shared, card).share)
    return _with_batch(result, x * y, truncated)


def _with_batch(result: TruncationTest, products: Tensor, truncated: Tensor) -> TruncationTest:
    """Return the result with one more batch."""
    errors = (truncated - (products >> PRECISION)).abs()
    correct = errors <= MAX_UNITS_OFF
    return result.model_copy(
        update={
            "number": result.number + len(errors),
            "wrong": result.wrong + int((~correct).sum()),
            "units": max(result.units, int(errors[correct].amax())),
            "expected_locally": result.expected_locally + float(products.abs().double().sum()) / 2**64,
        }
    )


class BenchJob(PeerJob):
    """Work of both parties: workloads by name with the protocols that compute them, then truncations."""

    extent: BenchSize
    tasks: list[tuple[str, ExecutableProtocol]]

    def measure_operations(self, end: BenchParty, prices: Sequence[OpPrice | None]) -> Iterator[Timings]:
        """Measure every task in turn; party 0 knows the prices."""
        workloads = {workload.name: workload for workload in list_workloads(self.extent)}
        for (name, protocol), price in zip(self.tasks, prices, strict=True):
            yield measure_kernel(end, workloads[name], protocol, price, self.extent.repetitions)

    def measure_truncations(self, end: BenchParty) -> Iterator[TruncationTest]:
        """Measure truncations, after the tasks."""
        return measure_truncations(end, self.extent)


@contextmanager
def bench_peer(job: BenchJob) -> Iterator[BenchParty]:
    """Yield this process as party 0, with a second process that goes through the same job."""
    with peer_process(__name__, job) as connection, connected_party(connection, 0) as ends:
        yield BenchParty(*ends)


def run_peer(job: BenchJob) -> None:
    """Run the second party through the whole job, without results."""
    with connected_party(call_party(job), 1) as ends:
        party = BenchParty(*ends)
        deque(job.measure_operations(party, [None] * len(job.tasks)), maxlen=0)
        deque(job.measure_truncations(party), maxlen=0)


if __name__ == "__main__":
    sys.exit(worker.run_job(run_peer, BenchJob))
