"""CrypTen's tuples, asked of the same source as the correlations of our own kernels.

Offline bytes follow CrypTen's third-party provider: both parties expand their shares of a tuple from seeds, except
party 0's share of its dependent part (the product, the square, the arithmetic copy of a bit), which must be sent.
"""

import math
from collections.abc import Sequence
from typing import Any

from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlations import AndTriple, RandomBit, SquarePair, Triple
from pi_sim.mpc.dealer.sources import Source

WORD = 8
PRODUCT_NAMES = {"mul": "multiply", "matmul": "matmul"}
"""CrypTen's names of the products that it needs triples for, and ours."""


class Provider(backend.TupleProvider):  # type: ignore[misc]
    """What CrypTen asks for tuples. Its own trace of what it asked for runs beside the source's counter.

    Wrap counts, which CrypTen needs among three parties and more, are refused by the class that this one is built on.
    """

    NAME = "pi-sim"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.trace()

    def generate_additive_triple(self, first: Any, second: Any, op: str, device: Any = None) -> tuple[Any, ...]:
        """[a], [b], [a op b] for a product."""
        shares = self.source.deal(Triple(PRODUCT_NAMES[op], tuple(first), tuple(second)))
        return tuple(backend.arithmetic_tensor(share.to(device)) for share in shares)

    def square(self, size: Any, device: Any = None) -> tuple[Any, ...]:
        """[r], [r * r]."""
        return tuple(backend.arithmetic_tensor(share.to(device)) for share in self.source.deal(SquarePair(tuple(size))))

    def generate_binary_triple(self, first: Any, second: Any, device: Any = None) -> tuple[Any, ...]:
        """[a], [b], [a & b] in exclusive-or shares."""
        shares = self.source.deal(AndTriple(tuple(first), tuple(second)))
        return tuple(backend.binary_tensor(share.to(device)) for share in shares)

    def B2A_rng(self, size: Any, device: Any = None) -> tuple[Any, ...]:  # noqa: N802
        """A random bit in arithmetic and in exclusive-or shares."""
        bit, ring = self.source.deal(RandomBit(tuple(size)))
        return backend.arithmetic_tensor(ring.to(device)), backend.binary_tensor(bit.to(device))

    def tuple_count(self) -> int:
        """How many of them CrypTen asked for so far."""
        return len(self.request_cache)

    def requested_bytes(self) -> int:
        """Bytes of the dependent parts of all tuples that CrypTen asked for so far, from their shapes alone."""
        return WORD * sum(_dependent_elements(name, args) for name, args, _ in self.request_cache)


def _dependent_elements(request: str, args: tuple[Any, ...]) -> int:
    """Elements of the dependent part of one request of CrypTen's trace."""
    if request == "generate_additive_triple" and args[2] == "matmul":
        (*batch, rows, _), (*other, _, columns) = args[0], args[1]
        return _broadcast_size(batch, other) * int(rows * columns)
    if request in ("generate_additive_triple", "generate_binary_triple"):
        return _broadcast_size(args[0], args[1])
    return math.prod(args[0])


def _broadcast_size(a: Sequence[int], b: Sequence[int]) -> int:
    """Elements of two shapes broadcast together."""
    rank = max(len(a), len(b))
    one, other = ([1] * (rank - len(shape)) + list(shape) for shape in (a, b))
    return math.prod(x if y == 1 else y for x, y in zip(one, other, strict=True))
