"""Operations and truncations between two processes: `python -m pi_sim.inference.bench.kernels` is the second one.

Both parties go through the same steps over a real connection. An operation is first counted and audited, then timed
with the dealer's work and without it, all randomness being in memory.
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
from pi_sim.inference.bench.workloads import Workload, draw_operands, evaluate_reference, list_workloads
from pi_sim.inference.peer import PeerJob, call_party, connected_party, peer_process
from pi_sim.mpc import backend, worker
from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.dealer.prg import SEED_BYTES, AesCtrPrg
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.executor import apply_op, fixed_operand, open_weights, prepare_op
from pi_sim.mpc.kernels import kernel_for
from pi_sim.mpc.runtime import Runtime
from pi_sim.mpc.transport.link import Link
from pi_sim.records import BenchSize, TruncationTest
from pi_sim.specs import ExecutableProtocol

CorrelationRequest = tuple[Correlation, tuple[int, ...]]
"""A requested correlation, and the numbers of the persistent masks that it follows from."""
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
    """Source of fresh shares for all logged requests, dealt beforehand and kept in memory."""

    def __init__(self, source: Source, requests: list[CorrelationRequest]) -> None:
        super().__init__(source.own_prg)
        self.ready = deque((correlation, source.deal(correlation, *mask_ids)) for correlation, mask_ids in requests)

    def _shares(self, correlation: Correlation, mask_ids: tuple[int, ...]) -> PartShares:
        expected, shares = self.ready.popleft()
        assert expected == correlation
        return _split_parts(correlation, shares)


def _split_parts(correlation: Correlation, shares: tuple[Tensor, ...]) -> PartShares:
    """Return the shares of the random parts, and those of the dependent parts."""
    count = len(correlation.random_parts)
    return list(shares[:count]), list(shares[count:])


@dataclass(frozen=True)
class BenchParty:
    """One party's link and its source of randomness; party 0 deals."""

    link: Link
    source: Source

    def share_of(self, ring: Tensor, mask: Tensor) -> Tensor:
        """Return this party's share of values that both parties know, hidden by a mask that both know."""
        return mask if self.link.rank else ring - mask

    def reveal(self, share: Tensor) -> Tensor:
        """Open a shared value to both parties."""
        value: Tensor = self.link.all_reduce(share)
        return value

    def time_both(self, run: Callable[[], object]) -> float:
        """Return the seconds from when both parties start until both are done."""
        self._synchronise()
        started = time.perf_counter()
        run()
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        self.link.all_reduce(torch.zeros(1, dtype=torch.long))

    def count_both(self, rt: Runtime, run: Callable[[], object]) -> Tensor:
        """Return what both parties' counters add while they run it, a row (7) per party, the same at both."""
        before = self._read_counters(rt)
        run()
        counts = self._read_counters(rt) - before
        rows = torch.zeros(2, len(counts), dtype=torch.long)
        rows[self.link.rank] = counts
        return self.reveal(rows)

    def _read_counters(self, rt: Runtime) -> Tensor:
        link = self.link
        counts = link.rounds, link.sent, link.received, link.comm_rounds, link.comm_bytes
        return torch.tensor([*counts, rt.source.offline_bytes, rt.requested_bytes])


def check_counters(what: str, predicted: Cost, counted: Tensor) -> None:
    """Raise a `RunError` for counts that differ from the price, or between the link, CrypTen and the dealer."""
    rows = counted.tolist()
    for own, peer in zip(rows, reversed(rows), strict=True):
        rounds, sent, received, crypten_rounds, crypten_bytes, offline, requested = own
        cost = Cost(rounds, (rows[0][1], rows[1][1]), offline)
        if (rounds, cost.sent, offline) != (predicted.rounds, predicted.sent, predicted.offline):
            raise RunError(f"{what}: predicted were {_describe_cost(predicted)}; counted were {_describe_cost(cost)}.")
        if (crypten_rounds, crypten_bytes, requested) != (rounds, sent + received, offline) or received != peer[1]:
            raise RunError(f"{what}: the counters of the link, of CrypTen and of the dealer disagree: {rows}.")


def _describe_cost(cost: Cost) -> str:
    return f"{cost.rounds} rounds, {cost.sent[0]} and {cost.sent[1]} bytes and {cost.offline} bytes offline"


Timings = dict[str, float]
"""Seconds with the dealer's work and without it, and the max error."""


def measure_kernel(
    end: BenchParty, workload: Workload, card: ExecutableProtocol, price: OpPrice | None, repetitions: int
) -> Timings:
    """Count, check and time one operation by one kernel.

    The counters are checked by the party that knows the price; a difference raises a `RunError`.
    """
    op, log, results = workload.op, LoggingSource(end.source), list[Any]()
    plain = draw_operands(workload.operands)
    with Runtime.running(end.link, log, card) as rt:
        shared = _share_operands(end, rt, workload, card, plain)
        offline_before = rt.source.offline_bytes
        operands = _prepare_operands(rt, op, shared, card)
        ahead_offline = rt.source.offline_bytes - offline_before
        counted = end.count_both(rt, lambda: results.append(apply_op(rt, op, operands, card)))
        counted[:, -2:] += ahead_offline
        error = _max_error(end, workload, results.pop(), plain)
    if price:
        check_counters(f"{op} under {card.name}", price.cost, counted)

    def seconds(dealt: bool) -> float:
        source = PreloadedSource(end.source, log.requests) if dealt else end.source
        with Runtime.running(end.link, source, card) as rt:
            operands = _prepare_operands(rt, op, shared, card)
            return end.time_both(lambda: apply_op(rt, op, operands, card))

    total, online = (min(seconds(dealt) for _ in range(repetitions)) for dealt in (False, True))
    return {"seconds": total, "online_seconds": online, "error": error}


def _share_operands(
    end: BenchParty, rt: Runtime, workload: Workload, card: ExecutableProtocol, plain: list[Tensor]
) -> list[Any]:
    """Return this party's shares of the operands; a weight that is opened once per session is opened here."""
    op, masks = workload.op, AesCtrPrg(bytes(SEED_BYTES))
    owned = kernel_for(op.name, card.kernels, card.name).server_operand(op)
    operands: list[Any] = [
        _share_operand(end, value, masks, index == owned) if secret else value
        for index, (value, secret) in enumerate(zip(plain, op.secret, strict=True))
    ]
    index = fixed_operand(op, card)
    if index is not None:
        (operands[index],) = open_weights(rt, [op], [operands[index]], card)
    return operands


def _prepare_operands(rt: Runtime, op: Op, operands: list[Any], card: ExecutableProtocol) -> list[Any]:
    """Return the operands with the fixed weight prepared for one evaluation."""
    index = fixed_operand(op, card)
    if index is None:
        return operands
    return [prepare_op(rt, op, item, card) if number == index else item for number, item in enumerate(operands)]


def _share_operand(end: BenchParty, value: Tensor, masks: AesCtrPrg, is_server_owned: bool) -> Any:
    """Share reals in fixed point, one-hot tokens as plain integers; what the server owns stays its own."""
    real = value.is_floating_point()
    (mask,) = masks.draw(TensorSpec(tuple(value.shape)))
    if is_server_owned:
        mask = torch.zeros_like(mask)
    return backend.fixed_point_tensor(end.share_of(to_fixed_point(value) if real else value, mask), None if real else 0)


def _max_error(end: BenchParty, workload: Workload, result: Any, plain: list[Tensor]) -> float:
    """Return the max error of a result against its plaintext reference in double precision."""
    op = workload.op
    expected = evaluate_reference(workload, plain)
    if op.name == "reveal":  # the server has no value
        share = torch.zeros(op.shapes[0], dtype=torch.long) if result is None else to_fixed_point(result)
    else:
        share = result.share
    return float((end.reveal(share).double() / 2**PRECISION - expected).abs().max())


TRUNCATION_PROTOCOLS = ("crypten", "lean")
BATCH_ELEMENTS = 2**20
MAX_UNITS_OFF = 2
"""Max error of a product in units of the last place: two where each share is rounded towards zero, one wrap-free."""


def batch_count(extent: BenchSize) -> int:
    """Return the number of batches of `measure_truncations`."""
    return len(extent.bounds) * len(TRUNCATION_PROTOCOLS) * -(-extent.truncations // BATCH_ELEMENTS)


def measure_truncations(end: BenchParty, extent: BenchSize) -> Iterator[TruncationTest]:
    """Yield the result so far after each batch of products, by every protocol's kernel and of every size."""
    for bound, protocol in product(extent.bounds, TRUNCATION_PROTOCOLS):
        card, values = specs.load_executable_protocol(protocol), AesCtrPrg(bytes(SEED_BYTES))
        result = TruncationTest(protocol=protocol, kernel=card.kernels["multiply"], bound=bound)
        while result.number < extent.truncations:
            length = min(BATCH_ELEMENTS, extent.truncations - result.number)
            result = _measure_batch(result, end, card, _draw_batch(values, bound, length))
            yield result


def _draw_batch(values: AesCtrPrg, bound: int, length: int) -> list[Tensor]:
    """Draw two factors, uniform from -bound to bound with 16 fractional bits, and a mask for each."""
    x, y, *masks = values.draw(*[TensorSpec((length,))] * 4)
    unit = 2**PRECISION
    return [*((factor & (2 * bound * unit - 1)) - bound * unit for factor in (x, y)), *masks]


def _measure_batch(
    result: TruncationTest, end: BenchParty, card: ExecutableProtocol, batch: list[Tensor]
) -> TruncationTest:
    """Return the result with one more batch: products between the parties against those of the plain integers."""
    x, y, *masks = batch
    op = Op("multiply", (tuple(x.shape), tuple(y.shape)), (True, True))
    with Runtime.running(end.link, end.source, card) as rt:
        shared = [backend.fixed_point_tensor(end.share_of(*pair)) for pair in zip((x, y), masks, strict=True)]
        truncated = end.reveal(apply_op(rt, op, shared, card).share)
    plain = x * y
    off = (truncated - (plain >> PRECISION)).abs()
    accurate = off <= MAX_UNITS_OFF
    return result.model_copy(
        update={
            "number": result.number + len(off),
            "wrong": result.wrong + int((~accurate).sum()),
            "units": max(result.units, int(off[accurate].amax())),
            "expected_locally": result.expected_locally + float(plain.abs().double().sum()) / 2**64,
        }
    )


class BenchJob(PeerJob):
    """Work of both parties: workloads by name with the protocols that compute them, then truncations."""

    extent: BenchSize
    tasks: list[tuple[str, ExecutableProtocol]]

    def measure_operations(self, end: BenchParty, prices: Sequence[OpPrice | None]) -> Iterator[Timings]:
        """Measure every task in turn; the prices are None at the party that does not check them."""
        workloads = {workload.name: workload for workload in list_workloads(self.extent)}
        for (name, protocol), price in zip(self.tasks, prices, strict=True):
            yield measure_kernel(end, workloads[name], protocol, price, self.extent.repetitions)


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
        deque(measure_truncations(party, job.extent), maxlen=0)


if __name__ == "__main__":
    sys.exit(worker.run_job(run_peer, BenchJob))
