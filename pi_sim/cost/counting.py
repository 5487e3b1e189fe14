"""Counting work: every operation on tensors that a kernel calls is seen once, with or without data."""

from collections import Counter
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pi_sim.cost.work import Work

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.bmm, aten.mv, aten.dot)
"""What torch makes of every matrix product; the first factor's last dimension is summed over."""
RELABELLING = (aten.set_, aten.squeeze_, aten._unsafe_view)
"""Views that torch does not call so: they write nothing."""


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that adds up the work done in it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: Counter[str] = Counter()

    @property
    def work(self) -> Work:
        """All of it so far."""
        return Work(**self.done)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        unit = _unit(function)
        if unit:
            written = [each for each in _sequence(result) if isinstance(each, Tensor)]
            self.done["calls"] += 1
            self.done[unit] += sum(_amount(unit, args, each) for each in written)
        return result


@cache
def _unit(function: Any) -> Literal["macs", "random", "elements"] | None:
    """The unit of `Work` that an operation of torch is counted in; None for a view."""
    if function.is_view or function.overloadpacket in RELABELLING:
        return None
    if function.overloadpacket in PRODUCTS:
        return "macs"
    return "random" if torch.Tag.nondeterministic_seeded in function.tags else "elements"


def _amount(unit: str, args: Any, written: Tensor) -> int:
    if unit == "macs":
        return int(written.numel() * args[0].shape[-1])
    return written.nbytes if unit == "random" else written.numel()


def _sequence(result: Any) -> Any:
    return result if isinstance(result, (tuple, list)) else (result,)
