"""Counting work: every operation on tensors that a kernel calls is seen once, with or without data."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
        self.work = Work()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.work += _work(function, args, [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)])
        return result


def _work(function: Any, args: Any, results: list[Tensor]) -> Work:
    """What one operation of torch takes, from the tensors that it wrote."""
    if function.is_view or function.overloadpacket in RELABELLING:
        return Work()
    elements = sum(result.numel() for result in results)
    if function.overloadpacket in PRODUCTS:
        return Work(macs=elements * args[0].shape[-1], calls=1)
    if torch.Tag.nondeterministic_seeded in function.tags:
        return Work(random=sum(result.nbytes for result in results), calls=1)
    return Work(elements=elements, calls=1)
