"""Many products of two secrets, truncated: how many come out wrong, and by how much the others are off."""

from collections.abc import Iterator
from itertools import product

from torch import Tensor

from pi_sim import specs
from pi_sim.graph.ops import Op
from pi_sim.graph.sharing import PRECISION
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlation import TensorSpec
from pi_sim.mpc.dealer.stream import SEED_BYTES, AesCtrPrg
from pi_sim.mpc.executor import apply_op
from pi_sim.records import BenchSize, TruncationTest
from pi_sim.run.bench.ends import BenchParty
from pi_sim.specs import ExecutableProtocol

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
            found = _measure_batch(found, end, card, _draw_batch(values, bound, min(BATCH_ELEMENTS, number - found.number)))
            yield found


def _draw_batch(values: AesCtrPrg, bound: int, length: int) -> list[Tensor]:
    """Two factors, uniform from -bound to bound with 16 bits of fraction, and a mask for each."""
    x, y, *masks = values.draw(*[TensorSpec((length,))] * 4)
    unit = 2**PRECISION
    return [*((each & (2 * bound * unit - 1)) - bound * unit for each in (x, y)), *masks]


def _measure_batch(found: TruncationTest, end: BenchParty, card: ExecutableProtocol, batch: list[Tensor]) -> TruncationTest:
    """Multiply between the parties, and compare with the product of the plain integers."""
    x, y, *masks = batch
    op = Op("multiply", (tuple(x.shape), tuple(y.shape)), (True, True))
    with end.protocol_context(card):
        shared = [backend.fixed_point_tensor(end.share_of(value, mask)) for value, mask in zip((x, y), masks, strict=True)]
        truncated = end.reveal(apply_op(op, shared, card).share)
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
