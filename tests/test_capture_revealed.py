"""Which linear maps carry the mark that their results go to the client alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pi_sim import specs
from pi_sim.cost import phantom
from pi_sim.cost.cost import Cost
from pi_sim.graph.capture import trace
from pi_sim.graph.ops import Op

Steps = Callable[["Maps", Tensor], object]


class Maps(nn.Module):
    """Two linear maps, put together as `steps` says."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.first, self.second, self.steps = nn.Linear(4, 4), nn.Linear(4, 4), steps

    def forward(self, x: Tensor) -> object:
        return self.steps(self, x)


@pytest.mark.parametrize(
    ("steps", "marked"),
    [
        (lambda self, x: self.second(self.first(x)), ["second"]),
        (lambda self, x: self.second(self.first(x)).reshape(8).unsqueeze(0), ["second"]),
        (lambda self, x: self.second(self.first(x))[:, -1], ["second"]),
        (lambda self, x: (self.first(x), self.second(x)), ["first", "second"]),
        (lambda self, x: (y := self.first(x), self.second(y)), ["second"]),
        (lambda self, x: torch.relu(self.second(x)), []),
        (lambda self, x: self.first(x) + self.second(x), []),
        (lambda self, x: torch.cat([self.first(x), x]), []),
    ],
)
def test_what_the_client_alone_sees_is_marked(steps: Steps, marked: list[str]) -> None:
    graph = trace(Maps(steps), (torch.zeros(2, 4),), {})
    linear = [node for node in graph.nodes if node.op.name == "linear"]
    assert [node.module for node in linear if dict(node.op.attributes).get("revealed")] == marked


@pytest.mark.parametrize(("protocol", "saved"), [("lean", Cost(1, 8 * 300, 16 * 300)), ("crypten", Cost())])
def test_a_protocol_may_leave_the_truncation_to_the_client(protocol: str, saved: Cost) -> None:
    shapes, card = ((3, 8), (8, 100), (100,)), specs.protocol_card(protocol)
    inner, last = (phantom.price(Op("linear", shapes, (True,) * 3, more), card) for more in ((), (("revealed", True),)))
    assert Cost(inner.rounds - last.rounds, inner.bytes - last.bytes, inner.offline - last.offline) == saved
