"""One operation by one kernel: counted and audited first, then timed with dealing and without."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.cost.prices import Charge
from pi_sim.graph.ops import Op
from pi_sim.graph.plain import PLAIN
from pi_sim.graph.sharing import PRECISION, encode
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlation import Part
from pi_sim.mpc.dealer.stream import SEED, Stream
from pi_sim.mpc.executor import apply, stationary
from pi_sim.mpc.primitives.stationary import settle
from pi_sim.run.bench.dealt import Noting, Ready
from pi_sim.run.bench.ends import End, audited
from pi_sim.run.bench.workloads import Workload, operands
from pi_sim.specs import ProtocolCard

Found = dict[str, float]
"""Seconds with the dealer's work and without, and the error of the value."""


def measure(end: End, workload: Workload, card: ProtocolCard, charge: Charge | None, repetitions: int) -> Found:
    """What it takes; a `RunError` where the counters part from the charge, which one of the parties knows."""
    op, noting, results = workload.op, Noting(end.source), list[Any]()
    plain = operands(op)
    with end.protocol_context(card, noting):
        shared = _shared(end, workload, card, plain)
        counted = end.count_both(noting, lambda: results.append(apply(op, shared, card)))
        error = _error(end, workload, results.pop(), plain)
    if charge:
        audited(f"{op} under {card.name}", charge.cost, counted)

    def seconds(dealt: bool) -> float:
        source = Ready(end.source, noting.requests) if dealt else end.source
        with end.protocol_context(card, source):
            return end.time_both(lambda: apply(op, shared, card))

    whole, online = (min(seconds(dealt) for _ in range(repetitions)) for dealt in (False, True))
    return {"seconds": whole, "online_seconds": online, "error": error}


def _shared(end: End, workload: Workload, card: ProtocolCard, plain: list[Tensor]) -> list[Any]:
    """This party's shares of the operands; a weight that stays put is opened, as it is before the first sequence."""
    op, masks = workload.op, Stream(bytes(SEED))
    pairs = zip(plain, op.secret, strict=True)
    found: list[Any] = [_operand(end, value, masks) if hidden else value for value, hidden in pairs]
    place = stationary(op, card)
    if place is not None:
        found[place] = settle([found[place].share])[0]
    return found


def _operand(end: End, value: Tensor, masks: Stream) -> Any:
    """Reals in fixed point, one-hot tokens as plain integers."""
    real = value.is_floating_point()
    (mask,) = masks.draw(Part(tuple(value.shape)))
    return backend.shares(end.share_of(encode(value) if real else value, mask), None if real else 0)


def _error(end: End, workload: Workload, result: Any, plain: list[Tensor]) -> float:
    """The largest distance of the value from the plain one in double precision."""
    op = workload.op
    clear = [plain[0], plain[1].argmax(-1)] if op.name == "embedding" else plain
    expected = PLAIN[op.name](*clear, **dict(op.attributes))
    share = _at_client(op, result) if op.name == "reveal" else result.share
    return float((end.reveal(share).double() / 2**PRECISION - expected).abs().max())


def _at_client(op: Op, value: Tensor | None) -> Tensor:
    """A plain value as if it were shared: the server has none."""
    return torch.zeros(op.shapes[0], dtype=torch.long) if value is None else encode(value)
