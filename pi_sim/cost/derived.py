"""Derived prices: the protocol's own kernels, run by one phantom party on tensors without data."""

# MERGED: Counting work: every operation on tensors that a kernel calls is seen once, with or without data, and every draw.  # noqa: E501

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from pi_sim.mpc.dry_run import dry_runtime, run_sequence, run_setup, secret_tensor
from pi_sim.mpc.executor import apply_op, fixed_operand
from pi_sim.mpc.primitives import beaver
from pi_sim.mpc.primitives.fourier import interpolation_tables
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.mpc.runtime import Runtime
from pi_sim.specs import ExecutableProtocol

PUBLIC_DTYPES = {"softmax": torch.bool, "lookup": torch.long}


class DerivedPrice(NamedTuple):
    """What one operation communicates, what computing it takes, and what it opens once in a session."""

    cost: Cost
    work: Work
    """Party 0's own."""
    dealer_work: Work
    """What it takes to deal the correlations, for whoever plays the dealer."""
    session_bytes: int
    """Bytes that one party sends to open a weight under its mask; all weights of a session share a round."""


def derive_cost(op: Op, protocol: ExecutableProtocol) -> Cost:
    """What one operation costs."""
    return derive_price(op, protocol).cost


def derive_price(op: Op, protocol: ExecutableProtocol) -> DerivedPrice:
    """One operation, its weight opened beforehand where the kernel keeps it; again where that made constants."""
    made = _constant_count()
    found = _derive_once(op, protocol)
    return found if _constant_count() == made else _derive_once(op, protocol)


def _constant_count() -> int:
    """How often any were made so far, which is no work: circuits and series of CrypTen's, tables of our kernels."""
    return sum(each.cache_info().misses for each in (*backend.CONSTANT_FUNCTIONS, interpolation_tables))


def _derive_once(op: Op, protocol: ExecutableProtocol) -> DerivedPrice:
    """The same, with the work of making constants where they are not yet known."""
    with _metered_dry_run(protocol) as seen:
        operands, place, counted = (
            _shape_only_operands(op),
            fixed_operand(op, protocol),
            WorkCounter(seen.prg, rt=seen.rt),
        )
        if place is not None:
            operands[place] = beaver.open_weight_shares(seen.rt, [operands[place].share])[0]
        opened, before = seen.take_cost(), seen.source.take_items()
        with counted:
            apply_op(seen.rt, op, operands, protocol)
        return DerivedPrice(
            seen.take_cost(), counted.work, _dealer_work(before, seen.source.take_items()), opened.bytes
        )


def derive_graph_cost(graph: Graph, protocol: ExecutableProtocol) -> Cost:
    """What a whole graph costs, run from end to end: the check on the sum of prices."""
    with _metered_dry_run(protocol) as seen:
        opened = run_setup(seen.rt, graph, protocol)
        seen.take_cost()
        run_sequence(seen.rt, graph, protocol, opened)
        return seen.take_cost()


@dataclass
class _DryRunMeter:
    """What the phantom and its dealer have counted, and what was drawn."""

    rt: Runtime
    source: RecordingSource
    prg: ShapePrg

    def take_cost(self) -> Cost:
        """All since the last time."""
        communicator = self.rt.communicator
        found = Cost(communicator.rounds, communicator.bytes, self.source.offline_bytes)
        communicator.rounds = communicator.bytes = self.source.offline_bytes = 0
        return found


@contextmanager
def _metered_dry_run(protocol: ExecutableProtocol) -> Iterator[_DryRunMeter]:
    drawn = ShapePrg()
    source = RecordingSource(drawn)
    with dry_runtime(protocol, source, drawn) as rt:
        yield _DryRunMeter(rt, source, drawn)


def _dealer_work(before: tuple[DemandItem, ...], entries: tuple[DemandItem, ...]) -> Work:
    """What a dealer does for these entries, besides drawing party 0's shares, which party 0 draws as well."""
    drawn, numbers = ShapePrg(), list[int]()
    source, counted = DealerSource(ShapePrg(), drawn), WorkCounter(drawn)
    for entry in before:
        entry.request(source, numbers)
    with counted:
        for entry in entries:
            entry.request(source, numbers)
    return counted.work


def _shape_only_operands(op: Op) -> list[Any]:
    onehot = 1 if op.name == "embedding" else None
    return [
        secret_tensor(shape, precision=0 if index == onehot else None)
        if hidden
        else torch.empty(shape, dtype=PUBLIC_DTYPES.get(op.name, torch.float32), device="meta")
        for index, (shape, hidden) in enumerate(zip(op.shapes, op.secret, strict=True))
    ]


aten = torch.ops.aten
MATRIX_PRODUCTS = (aten.mm, aten.bmm, aten.mv, aten.dot)
"""What torch makes of every matrix product; the first factor's last dimension is summed over."""
NON_WRITING_OPS = (aten.set_, aten.squeeze_, aten._unsafe_view, aten.empty)
"""What writes nothing: views that torch does not call so, and the memory that is drawn into."""


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that adds up the work done in it."""

    def __init__(self, *prgs: Prg, rt: Runtime | None = None) -> None:
        """`prgs` are those that the work draws from; `rt` is the runtime that counts CrypTen's tuples, if any."""
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
        """All of it so far."""
        return Work(**self.totals)

    def _add_external_counters(self, sign: int) -> None:
        """What others count. A draw is a call like any other."""
        self.totals["tuples"] += sign * (self.rt.tuple_count if self.rt else 0)
        for stream in self.prgs:
            self.totals["random"] += sign * stream.bytes
            self.totals["calls"] += sign * stream.draws

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        unit = _work_unit(function)
        if unit and not _is_device_copy(function, args, result):
            written = [each for each in _as_sequence(result) if isinstance(each, Tensor)]
            self.totals["calls"] += 1
            self.totals[unit] += sum(_work_amount(unit, args, each) for each in written)
        return result


@cache
def _work_unit(function: Any) -> Literal["macs", "elements"] | None:
    """The unit of `Work` that an operation of torch is counted in; None for a view."""
    if function.is_view or function.overloadpacket in NON_WRITING_OPS:
        return None
    return "macs" if function.overloadpacket in MATRIX_PRODUCTS else "elements"


def _is_device_copy(function: Any, args: Any, result: Any) -> bool:
    """Whether a tensor only went to another device: a phantom's indices do, a party's are where they are needed."""
    return bool(function.overloadpacket == aten._to_copy and args[0].device != result.device)


def _work_amount(unit: str, args: Any, written: Tensor) -> int:
    return int(written.numel() * args[0].shape[-1]) if unit == "macs" else -(-written.nbytes // WORD_BYTES)


def _as_sequence(result: Any) -> Any:
    return result if isinstance(result, (tuple, list)) else (result,)
