"""One operation by one kernel: counted and audited first, then timed with dealing and without."""

from typing import Any

import torch
from torch import Tensor

from pi_sim.cost.prices import OpPrice
from pi_sim.graph.ops import Op
from pi_sim.graph.plain import REFERENCE
from pi_sim.graph.sharing import PRECISION, to_fixed_point
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlation import TensorSpec
from pi_sim.mpc.dealer.stream import SEED_BYTES, AesCtrPrg
from pi_sim.mpc.executor import apply_op, fixed_operand
from pi_sim.mpc.primitives.stationary import open_weight_shares
from pi_sim.run.bench.dealt import LoggingSource, PreloadedSource
from pi_sim.run.bench.ends import BenchParty, check_counters
from pi_sim.run.bench.workloads import Workload, example_operands
from pi_sim.specs import ExecutableProtocol

Timings = dict[str, float]
"""Seconds with the dealer's work and without, and the error of the value."""


def measure_kernel(end: BenchParty, workload: Workload, card: ExecutableProtocol, charge: OpPrice | None, repetitions: int) -> Timings:
    """What it takes; a `RunError` where the counters part from the charge, which one of the parties knows."""
    op, noting, results = workload.op, LoggingSource(end.source), list[Any]()
    plain = example_operands(op)
    with end.protocol_context(card, noting):
        shared = _share_operands(end, workload, card, plain)
        counted = end.count_both(noting, lambda: results.append(apply_op(op, shared, card)))
        error = _max_error(end, workload, results.pop(), plain)
    if charge:
        check_counters(f"{op} under {card.name}", charge.cost, counted)

    def seconds(dealt: bool) -> float:
        source = PreloadedSource(end.source, noting.requests) if dealt else end.source
        with end.protocol_context(card, source):
            return end.time_both(lambda: apply_op(op, shared, card))

    whole, online = (min(seconds(dealt) for _ in range(repetitions)) for dealt in (False, True))
    return {"seconds": whole, "online_seconds": online, "error": error}


def _share_operands(end: BenchParty, workload: Workload, card: ExecutableProtocol, plain: list[Tensor]) -> list[Any]:
    """This party's shares of the operands; a weight that stays put is opened, as it is before the first sequence."""
    op, masks = workload.op, AesCtrPrg(bytes(SEED_BYTES))
    pairs = zip(plain, op.secret, strict=True)
    found: list[Any] = [_share_operand(end, value, masks) if hidden else value for value, hidden in pairs]
    place = fixed_operand(op, card)
    if place is not None:
        found[place] = open_weight_shares([found[place].share])[0]
    return found


def _share_operand(end: BenchParty, value: Tensor, masks: AesCtrPrg) -> Any:
    """Reals in fixed point, one-hot tokens as plain integers."""
    real = value.is_floating_point()
    (mask,) = masks.draw(TensorSpec(tuple(value.shape)))
    return backend.fixed_point_tensor(end.share_of(to_fixed_point(value) if real else value, mask), None if real else 0)


def _max_error(end: BenchParty, workload: Workload, result: Any, plain: list[Tensor]) -> float:
    """The largest distance of the value from the plain one in double precision."""
    op = workload.op
    clear = [plain[0], plain[1].argmax(-1)] if op.name == "embedding" else plain
    expected = REFERENCE[op.name](*clear, **dict(op.attributes))
    share = _client_value(op, result) if op.name == "reveal" else result.share
    return float((end.reveal(share).double() / 2**PRECISION - expected).abs().max())


def _client_value(op: Op, value: Tensor | None) -> Tensor:
    """A plain value as if it were shared: the server has none."""
    return torch.zeros(op.shapes[0], dtype=torch.long) if value is None else to_fixed_point(value)
