"""Randomness that lies ready before a kernel asks for it, so that what it takes online can be timed alone."""

# MERGED: One party's end of a bench: both go through the same steps at once, over a real connection.
# MERGED: One operation by one kernel: counted and audited first, then timed with dealing and without.
# MERGED: Many products of two secrets, truncated: how many come out wrong, and by how much the others are off.
# MERGED: Both parties of a bench, and the other one as a process: `python -m pi_sim.run.bench.kernels PORT JOB`.

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
"""A correlation that was asked for, and the numbers of what it follows from."""
PartShares = tuple[list[Tensor], list[Tensor]]


class LoggingSource(Source):
    """A source that hands out another one's shares and notes what was asked for."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.own_prg)
        self.source = source
        self.requests: list[CorrelationRequest] = []

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        return self.source.persistent_mask(part)

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> PartShares:
        self.requests.append((correlation, kept))
        return _split_parts(correlation, self.source.deal(correlation, *kept))


class PreloadedSource(Source):
    """A source that was asked for everything on the notes beforehand: fresh shares, all of them in memory."""

    def __init__(self, source: Source, notes: list[CorrelationRequest]) -> None:
        super().__init__(source.own_prg)
        self.ready = deque((correlation, source.deal(correlation, *kept)) for correlation, kept in notes)

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> PartShares:
        noted, shares = self.ready.popleft()
        assert noted == correlation
        return _split_parts(correlation, shares)


def _split_parts(correlation: Correlation, shares: tuple[Tensor, ...]) -> PartShares:
    """Those of the drawn parts, and those of the derived ones."""
    drawn = len(correlation.random_parts)
    return list(shares[:drawn]), list(shares[drawn:])


@dataclass(frozen=True)
class BenchParty:
    """A party's link and its source of randomness, party 0 being in the dealer's place."""

    link: Link
    source: Source

    @contextmanager
    def protocol_context(self, card: ExecutableProtocol, source: Source | None = None) -> Iterator[Runtime]:
        """Kernels that are called inside run as a protocol says, with randomness from `source`."""
        with Runtime.running(self.link, source or self.source, card) as rt:
            yield rt

    def share_of(self, ring: Tensor, mask: Tensor) -> Tensor:
        """This party's share of values that both know, as the same mask hides them at both."""
        return mask if self.link.rank else ring - mask

    def reveal(self, share: Tensor) -> Tensor:
        """The value of which each party holds a share."""
        found: Tensor = self.link.all_reduce(share)
        return found

    def time_both(self, run: Callable[[], object]) -> float:
        """Seconds from when both parties begin until both are done."""
        self._synchronise()
        started = time.perf_counter()
        run()
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        self.link.all_reduce(torch.zeros(1, dtype=torch.long))

    def count_both(self, rt: Runtime, run: Callable[[], object]) -> Tensor:
        """What both parties count while they run it, by several counters: a row (7) for each, the same at both."""
        before = self._read_counters(rt)
        run()
        mine = self._read_counters(rt) - before
        rows = torch.zeros(2, len(mine), dtype=torch.long)
        rows[self.link.rank] = mine
        return self.reveal(rows)

    def _read_counters(self, rt: Runtime) -> Tensor:
        link = self.link
        ours = link.rounds, link.sent, link.received
        return torch.tensor([*ours, link.comm_rounds, link.comm_bytes, rt.source.offline_bytes, rt.requested_bytes])


def check_counters(what: str, predicted: Cost, counted: Tensor) -> None:
    """Refuse counts that differ from the price, or from one another: the link's, CrypTen's and the dealer's."""
    rows = counted.tolist()
    for mine, theirs in zip(rows, reversed(rows), strict=True):
        rounds, sent, received, crypten_rounds, crypten_bytes, offline, asked = mine
        found = Cost(rounds, max(sent, theirs[1]), offline)
        if found != predicted:
            raise RunError(f"{what}: predicted were {_describe_cost(predicted)}; counted were {_describe_cost(found)}.")
        if (crypten_rounds, crypten_bytes, asked) != (rounds, sent + received, offline) or received != theirs[1]:
            raise RunError(f"{what}: the counters of the link, of CrypTen and of the dealer disagree: {rows}.")


def _describe_cost(cost: Cost) -> str:
    return f"{cost.rounds} rounds, {cost.bytes} bytes and {cost.offline} bytes offline"


Timings = dict[str, float]
"""Seconds with the dealer's work and without, and the error of the value."""


def measure_kernel(
    end: BenchParty, workload: Workload, card: ExecutableProtocol, charge: OpPrice | None, repetitions: int
) -> Timings:
    """What it takes; a `RunError` where the counters part from the charge, which one of the parties knows."""
    op, noting, results = workload.op, LoggingSource(end.source), list[Any]()
    plain = draw_operands(workload.operands)
    with end.protocol_context(card, noting) as rt:
        shared = _share_operands(end, rt, workload, card, plain)
        counted = end.count_both(rt, lambda: results.append(apply_op(rt, op, shared, card)))
        error = _max_error(end, workload, results.pop(), plain)
    if charge:
        check_counters(f"{op} under {card.name}", charge.cost, counted)

    def seconds(dealt: bool) -> float:
        source = PreloadedSource(end.source, noting.requests) if dealt else end.source
        with end.protocol_context(card, source) as rt:
            return end.time_both(lambda: apply_op(rt, op, shared, card))

    whole, online = (min(seconds(dealt) for _ in range(repetitions)) for dealt in (False, True))
    return {"seconds": whole, "online_seconds": online, "error": error}


def _share_operands(
    end: BenchParty, rt: Runtime, workload: Workload, card: ExecutableProtocol, plain: list[Tensor]
) -> list[Any]:
    """This party's shares of the operands; a weight that stays put is opened, as it is before the first sequence."""
    op, masks = workload.op, AesCtrPrg(bytes(SEED_BYTES))
    pairs = zip(plain, op.secret, strict=True)
    found: list[Any] = [_share_operand(end, value, masks) if hidden else value for value, hidden in pairs]
    place = fixed_operand(op, card)
    if place is not None:
        found[place] = open_weight_shares(rt, [found[place].share])[0]
    return found


def _share_operand(end: BenchParty, value: Tensor, masks: AesCtrPrg) -> Any:
    """Reals in fixed point, one-hot tokens as plain integers."""
    real = value.is_floating_point()
    (mask,) = masks.draw(TensorSpec(tuple(value.shape)))
    return backend.fixed_point_tensor(end.share_of(to_fixed_point(value) if real else value, mask), None if real else 0)


def _max_error(end: BenchParty, workload: Workload, result: Any, plain: list[Tensor]) -> float:
    """The largest distance of the value from the plain one in double precision."""
    op = workload.op
    expected = evaluate_reference(workload, plain)
    share = _client_value(op, result) if op.name == "reveal" else result.share
    return float((end.reveal(share).double() / 2**PRECISION - expected).abs().max())


def _client_value(op: Op, value: Tensor | None) -> Tensor:
    """A plain value as if it were shared: the server has none."""
    return torch.zeros(op.shapes[0], dtype=torch.long) if value is None else to_fixed_point(value)


TRUNCATION_PROTOCOLS = ("crypten", "lean")
BATCH_ELEMENTS = 2**20
MAX_UNITS_OFF = 2
"""Of the last place, by which a product may be off: shares rounded towards zero one by one can be, ours by one."""


def batch_count(extent: BenchSize) -> int:
    """How many batches `count` goes through."""
    return len(extent.bounds) * len(TRUNCATION_PROTOCOLS) * -(-extent.truncations // BATCH_ELEMENTS)


def measure_truncations(end: BenchParty, extent: BenchSize) -> Iterator[TruncationTest]:
    """What was found so far, batch by batch: so many products by every protocol's kernel, of every size."""
    number = extent.truncations
    for bound, protocol in product(extent.bounds, TRUNCATION_PROTOCOLS):
        card, values = specs.load_executable_protocol(protocol), AesCtrPrg(bytes(SEED_BYTES))
        found = TruncationTest(protocol=protocol, kernel=card.kernels["multiply"], bound=bound)
        while found.number < number:
            found = _measure_batch(
                found, end, card, _draw_batch(values, bound, min(BATCH_ELEMENTS, number - found.number))
            )
            yield found


def _draw_batch(values: AesCtrPrg, bound: int, length: int) -> list[Tensor]:
    """Two factors, uniform from -bound to bound with 16 bits of fraction, and a mask for each."""
    x, y, *masks = values.draw(*[TensorSpec((length,))] * 4)
    unit = 2**PRECISION
    return [*((each & (2 * bound * unit - 1)) - bound * unit for each in (x, y)), *masks]


def _measure_batch(
    found: TruncationTest, end: BenchParty, card: ExecutableProtocol, batch: list[Tensor]
) -> TruncationTest:
    """Multiply between the parties, and compare with the product of the plain integers."""
    x, y, *masks = batch
    op = Op("multiply", (tuple(x.shape), tuple(y.shape)), (True, True))
    with end.protocol_context(card) as rt:
        shared = [
            backend.fixed_point_tensor(end.share_of(value, mask)) for value, mask in zip((x, y), masks, strict=True)
        ]
        truncated = end.reveal(apply_op(rt, op, shared, card).share)
    return _with_batch(found, x * y, truncated)


def _with_batch(found: TruncationTest, whole: Tensor, truncated: Tensor) -> TruncationTest:
    """With one batch more."""
    off = (truncated - (whole >> PRECISION)).abs()
    right = off <= MAX_UNITS_OFF
    return found.model_copy(
        update={
            "number": found.number + len(off),
            "wrong": found.wrong + int((~right).sum()),
            "units": max(found.units, int(off[right].amax())),
            "expected_locally": found.expected_locally + float(whole.abs().double().sum()) / 2**64,
        }
    )


class BenchJob(PeerJob):
    """Work of both parties: workloads by name with the protocols that compute them, then truncations."""

    extent: BenchSize
    tasks: list[tuple[str, ExecutableProtocol]]

    def measure_operations(self, end: BenchParty, charges: Sequence[OpPrice | None]) -> Iterator[Timings]:
        """Every task in turn; who knows what it costs gives the charges."""
        known = {workload.name: workload for workload in list_workloads(self.extent)}
        for (name, protocol), charge in zip(self.tasks, charges, strict=True):
            yield measure_kernel(end, known[name], protocol, charge, self.extent.repetitions)

    def measure_truncations(self, end: BenchParty) -> Iterator[TruncationTest]:
        """What follows the tasks."""
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
