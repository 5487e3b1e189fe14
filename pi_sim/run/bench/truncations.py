"""Many products of two secrets, truncated: how many come out wrong, and by how much the others are off."""

from collections.abc import Iterator
from itertools import product

from torch import Tensor

from pi_sim import specs
from pi_sim.graph.ops import Op
from pi_sim.graph.sharing import PRECISION
from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlation import Part
from pi_sim.mpc.dealer.stream import SEED, Stream
from pi_sim.mpc.executor import apply
from pi_sim.records import BenchSize, TruncationTest
from pi_sim.run.bench.ends import End
from pi_sim.specs import ProtocolCard

PROTOCOLS = ("crypten", "lean")
BATCH = 2**20
UNITS = 2
"""Of the last place, by which a product may be off: shares rounded towards zero one by one can be, ours by one."""


def steps(extent: BenchSize) -> int:
    """How many batches `count` goes through."""
    return len(extent.bounds) * len(PROTOCOLS) * -(-extent.truncations // BATCH)


def count(end: End, extent: BenchSize) -> Iterator[TruncationTest]:
    """What was found so far, batch by batch: so many products by every protocol's kernel, of every size."""
    number = extent.truncations
    for bound, protocol in product(extent.bounds, PROTOCOLS):
        card, values = specs.protocol_card(protocol), Stream(bytes(SEED))
        found = TruncationTest(protocol=protocol, kernel=card.kernels["multiply"], bound=bound)
        while found.number < number:
            found = _add(found, end, card, _batch(values, bound, min(BATCH, number - found.number)))
            yield found


def _batch(values: Stream, bound: int, length: int) -> list[Tensor]:
    """Two factors, uniform from -bound to bound with 16 bits of fraction, and a mask for each."""
    x, y, *masks = values.draw(*[Part((length,))] * 4)
    unit = 2**PRECISION
    return [*((each & (2 * bound * unit - 1)) - bound * unit for each in (x, y)), *masks]


def _add(found: TruncationTest, end: End, card: ProtocolCard, batch: list[Tensor]) -> TruncationTest:
    """Multiply between the parties, and compare with the product of the plain integers."""
    x, y, *masks = batch
    op = Op("multiply", (tuple(x.shape), tuple(y.shape)), (True, True))
    with end.protocol_context(card):
        shared = [backend.shares(end.share_of(value, mask)) for value, mask in zip((x, y), masks, strict=True)]
        truncated = end.reveal(apply(op, shared, card).share)
    return _told(found, x * y, truncated)


def _told(found: TruncationTest, whole: Tensor, truncated: Tensor) -> TruncationTest:
    """With one batch more."""
    off = (truncated - (whole >> PRECISION)).abs()
    right = off <= UNITS
    return found.model_copy(
        update={
            "number": found.number + len(off),
            "wrong": found.wrong + int((~right).sum()),
            "units": max(found.units, int(off[right].amax())),
            "expected_locally": found.expected_locally + float(whole.abs().double().sum()) / 2**64,
        }
    )
