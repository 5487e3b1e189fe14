"""The equation for what each party does alone: nothing is sent, and the value is exact unless it is truncated.

`test_equation` insists that every operation with a fixed kernel stands in LOCAL or there.
"""

from dataclasses import dataclass, field

import pytest
import torch
from equation import hold, normal
from parties import Parties
from torch import Tensor

EXACT = 1e-9


@dataclass(frozen=True)
class Case:
    """Operands, of which those in float32, long and bool are public, and attributes."""

    operands: list[Tensor]
    attributes: dict[str, object] = field(default_factory=dict)
    tolerance: float = EXACT


X, ROW = normal(1, 3, 4), normal(2, 4)

LOCAL = {
    "add": Case([X, ROW]),
    "neg": Case([X]),
    "sum": Case([X], {"dim": 0}),
    "mask": Case([X, torch.tensor([True, False, True, False])]),
    "scale": Case([X], {"factor": 0.25}, 1e-3),
    "scale_by": Case([X, torch.linspace(-1, 1, 12).view(3, 4)], tolerance=1e-3),
    "view": Case([X], {"shape": (2, 6)}),
    "expand": Case([normal(1, 2, 1, 3)], {"shape": (2, 4, 3)}),
    "transpose": Case([X], {"dim0": 0, "dim1": 1}),
    "slice": Case([X], {"dim": 1, "start": 1, "stop": 3}),
    "concat": Case([X, normal(3, 3, 1), X], {"dim": 1}),
    "lookup": Case([normal(1, 5, 4), torch.tensor([[3, 0, 3]])]),
}


@pytest.mark.parametrize("name", LOCAL)
def test_local_operations(parties: Parties, name: str) -> None:
    case = LOCAL[name]
    hold(parties, name, case.operands, case.tolerance, **case.attributes)


@pytest.mark.parametrize("public", [torch.tensor(5.0), torch.linspace(-1, 1, 12).view(3, 4)])
def test_a_public_summand_is_added_once(parties: Parties, public: Tensor) -> None:
    hold(parties, "add", [ROW, public], 1e-4)
