"""Derived prices: the protocol's own kernels in a dry run, on tensors without data.

Communication is counted by the dry run's communicator and dealer. Work is counted by `WorkCounter`, which sees every
tensor operation that a kernel calls, with or without data, and every draw from a PRG.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pi_sim.cost.cost import Cost, Work
from pi_sim.graph.ops import Graph, Op
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.prg import Prg, ShapePrg
from pi_sim.mpc.dealer.sources import DealerSource, DemandItem, RecordingSource
from pi_sim.mpc.executor import (
    apply_op,
    dry_runtime,
    earlier_rows,
    fixed_operand,
    is_tied,
    open_weights,
    prepare_op,
    prepare_sequence,
    run_sequence,
    run_setup,
    secret_tensor,
)
from pi_sim.mpc.primitives.cached import CachedFactor
from pi_sim.mpc.primitives.fourier import interpolation_tables
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.mpc.runtime import Runtime
from pi_sim.specs import ExecutableProtocol

PUBLIC_DTYPES = {"softmax": torch.bool, "lookup": torch.long}


class DerivedPrice(NamedTuple):
    """Price of one operation: communication and work."""

    cost: Cost
    work: Work
    """Work of party 0 once the input is there."""
    dealer_work: Work
    """Work of dealing the correlations that kernels request then, besides drawing party 0's shares."""
    expansion_work: Work
    """Work of party 1 then in place of the dealer's: it expands its shares of dependent parts."""
    ahead_work: Work
    """Work of party 1 before the input is there."""
    ahead_dealer_work: Work
    """Work of dealing what is requested before the input is there."""


def derive_price(op: Op, protocol: ExecutableProtocol) -> DerivedPrice:
    """Return the price of one operation; a fixed operand is opened beforehand.

    Constants that are computed once per process, such as circuits and tables, are no work: where the first dry run
    computed some, the second one counts.
    """
    count_before = _constant_count()
    price = _derive_once(op, protocol)
    return price if _constant_count() == count_before else _derive_once(op, protocol)


def _constant_count() -> int:
    """Return how many constants were computed so far: circuits and series of CrypTen's, tables of our kernels."""
    return sum(function.cache_info().misses for function in (*backend.CONSTANT_FUNCTIONS, interpolation_tables))


def _derive_once(op: Op, protocol: ExecutableProtocol) -> DerivedPrice:
    """Return the price of one operation, including the work of computing constants that are not cached yet."""
    with _metered_dry_run(protocol) as meter:
        operands, index = _shape_only_operands(op), fixed_operand(op, protocol)
        if (fresh := op.attribute("fresh")) is not None:
            operands[1] = CachedFactor.without_data(meter.rt, op.shapes[1], fresh)
        counter = WorkCounter(meter.prg, rt=meter.rt)
        if index is not None:
            (operands[index],) = open_weights(meter.rt, [op], [operands[index]], protocol)
        session = meter.take_cost()
        session_items = meter.source.take_items()
        if index is not None:
            operands[index] = prepare_op(meter.rt, op, operands[index], protocol)
        ahead, ahead_items = meter.take_cost(), meter.source.take_items()
        with counter:
            apply_op(meter.rt, op, operands, protocol)
        online, items = meter.take_cost(), meter.source.take_items()
    return DerivedPrice(
        cost=replace(
            online,
            offline=ahead.offline + online.offline,
            ahead=ahead.sent,
            session=(0, 0) if is_tied(op, protocol) or op.attribute("reused") else session.sent,
        ),
        work=counter.work,
        dealer_work=_dealer_work(session_items, ahead_items, items),
        expansion_work=Work(random=online.offline),
        ahead_work=_ahead_work(op, protocol),
        ahead_dealer_work=_dealer_work(session_items, (), ahead_items),
    )


def _ahead_work(op: Op, protocol: ExecutableProtocol) -> Work:
    """Return the client's work for an operation before the input is there."""
    index = fixed_operand(op, protocol)
    if index is None:
        return Work()
    with _metered_dry_run(protocol, rank=1) as meter:
        (handle,) = open_weights(meter.rt, [op], [_shape_only_operands(op)[index]], protocol)
        with WorkCounter(meter.prg) as counter:
            prepare_op(meter.rt, op, handle, protocol)
        return counter.work


def derive_graph_cost(graph: Graph, protocol: ExecutableProtocol) -> Cost:
    """Return the communication of a graph, run from end to end: the check on the sum of its operations' prices."""
    with _metered_dry_run(protocol) as meter:
        opened_weights = run_setup(meter.rt, graph, protocol)
        session = meter.take_cost()
        prepared = prepare_sequence(meter.rt, graph, protocol, opened_weights)
        ahead, cache = meter.take_cost(), earlier_rows(meter.rt, graph)
        run_sequence(meter.rt, graph, protocol, prepared, cache)
        online = meter.take_cost()
        offline = ahead.offline + online.offline
        return replace(online, offline=offline, ahead=ahead.sent, session=session.sent)


@dataclass
class _DryRunMeter:
    """Runtime, dealer and PRG of a dry run, whose counters it reads."""

    rt: Runtime
    source: RecordingSource
    prg: ShapePrg

    def take_cost(self) -> Cost:
        """Return the communication since the last call, and reset its counters."""
        communicator = self.rt.communicator
        sent = communicator.sent[0], communicator.sent[1]
        cost = Cost(communicator.rounds, sent, self.source.offline_bytes, communicator.serial_bytes)
        communicator.reset()
        self.source.offline_bytes = 0
        return cost


@contextmanager
def _metered_dry_run(protocol: ExecutableProtocol, rank: int = 0) -> Iterator[_DryRunMeter]:
    prg = ShapePrg()
    source = RecordingSource(prg, rank)
    with dry_runtime(protocol, source, prg) as rt:
        yield _DryRunMeter(rt, source, prg)


def _dealer_work(
    session_items: tuple[DemandItem, ...], earlier_items: tuple[DemandItem, ...], items: tuple[DemandItem, ...]
) -> Work:
    """Return a dealer's work for `items`, besides drawing party 0's shares, which party 0 draws as well."""
    peer_prg, mask_ids = ShapePrg(), list[int]()
    source, counter = DealerSource(ShapePrg(), peer_prg), WorkCounter(peer_prg)
    for item in (*session_items, *earlier_items):
        item.request(source, mask_ids)
    with counter:
        for item in items:
            item.request(source, mask_ids)
    return counter.work


def _shape_only_operands(op: Op) -> list[Any]:
    onehot = 1 if op.name == "embedding" else None
    return [
        secret_tensor(shape, precision=0 if index == onehot else None)
        if is_secret
        else torch.empty(shape, dtype=PUBLIC_DTYPES.get(op.name, torch.float32), device="meta")
        for index, (shape, is_secret) in enumerate(zip(op.shapes, op.secret, strict=True))
    ]


aten = torch.ops.aten
MATRIX_PRODUCTS = (aten.mm, aten.bmm, aten.mv, aten.dot)
"""Operations that every matrix product of torch becomes; they sum over the first factor's last dimension."""
NON_WRITING_OPS = (aten.set_, aten.squeeze_, aten._unsafe_view, aten.empty)
"""Operations that write nothing: views that torch does not mark as such, and allocations."""


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context that adds up the work done in it."""

    def __init__(self, *prgs: Prg, rt: Runtime | None = None) -> None:
        """`prgs` are those that the work draws from; `rt`, if CrypTen runs, counts its tuples."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.totals: Counter[str] = Counter()
        self.prgs, self.rt = prgs, rt

    def __enter__(self) -> "WorkCounter":
        self._add_external_counters(-1)
        return super().__enter__()  # type: ignore[no-untyped-call,no-any-return]

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)  # type: ignore[no-untyped-call]
        self._add_external_counters(1)

    @property
    def work(self) -> Work:
        """The work counted so far."""
        return Work(**self.totals)

    def _add_external_counters(self, sign: int) -> None:
        """Add the counters kept elsewhere: tuples, and bytes and draws of the PRGs. A draw is a call."""
        self.totals["tuples"] += sign * (self.rt.tuple_count if self.rt else 0)
        for prg in self.prgs:
            self.totals["random"] += sign * prg.bytes
            self.totals["calls"] += sign * prg.draws

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        unit = _work_unit(function)
        if unit and not _is_device_copy(function, args, result):
            outputs = result if isinstance(result, (tuple, list)) else (result,)
            tensors = [output for output in outputs if isinstance(output, Tensor)]
            self.totals["calls"] += 1
            self.totals[unit] += sum(_work_amount(unit, args, tensor) for tensor in tensors)
        return result


@cache
def _work_unit(function: Any) -> Literal["macs", "elements"] | None:
    """Return the unit of `Work` in which an operation of torch is counted; None for a view."""
    if function.is_view or function.overloadpacket in NON_WRITING_OPS:
        return None
    return "macs" if function.overloadpacket in MATRIX_PRODUCTS else "elements"


def _is_device_copy(function: Any, args: Any, result: Any) -> bool:
    """Return True if a tensor was only copied to another device: a dry run copies indices, a party need not."""
    return bool(function.overloadpacket == aten._to_copy and args[0].device != result.device)


def _work_amount(unit: str, args: Any, output: Tensor) -> int:
    return int(output.numel() * args[0].shape[-1]) if unit == "macs" else -(-output.nbytes // WORD_BYTES)
