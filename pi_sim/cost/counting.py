"""Counting work: every operation on tensors that a kernel calls is seen once, with or without data, and every draw."""

from collections import Counter
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pi_sim.cost.work import Work
from pi_sim.mpc import session
from pi_sim.mpc.dealer.stream import Prg

WORD_BYTES = 8
aten = torch.ops.aten
MATRIX_PRODUCTS = (aten.mm, aten.bmm, aten.mv, aten.dot)
"""What torch makes of every matrix product; the first factor's last dimension is summed over."""
NON_WRITING_OPS = (aten.set_, aten.squeeze_, aten._unsafe_view, aten.empty)
"""What writes nothing: views that torch does not call so, and the memory that is drawn into."""


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that adds up the work done in it."""

    def __init__(self, *streams: Prg) -> None:
        """`streams` are those that it draws from."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.totals: Counter[str] = Counter()
        self.prgs = streams

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
        self.totals["tuples"] += sign * session.tuple_count()
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
