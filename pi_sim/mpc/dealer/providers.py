"""CrypTen's tuples, from the same source as the correlations of our own kernels.

Offline bytes follow CrypTen's third-party provider: both parties expand their shares of a tuple from seeds, except
party 0's share of its dependent part (the product, the square, the arithmetic copy of a bit), which must be sent.
"""

import math
from collections.abc import Sequence
from typing import Any

from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlations import AndTriple, RandomBit, SquarePair, Triple
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.primitives.ring import WORD_BYTES

PRODUCT_NAMES = {"mul": "multiply", "matmul": "matmul"}
"""Products that need triples: CrypTen's names and ours."""


class Provider(backend.TupleProvider):  # type: ignore[misc]
    """CrypTen's provider of tuples. CrypTen's own trace of requests runs beside the source's counter.

    The base class refuses wrap counts, which CrypTen needs among three and more parties.
    """

    NAME = "pi-sim"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.trace()

    def generate_additive_triple(self, first: Any, second: Any, op: str, device: Any = None) -> tuple[Any, ...]:
        """Return [a], [b], [a op b] for a product."""
        shares = self.source.deal(Triple(PRODUCT_NAMES[op], tuple(first), tuple(second)))
        return tuple(backend.arithmetic_tensor(share.to(device)) for share in shares)

    def square(self, size: Any, device: Any = None) -> tuple[Any, ...]:
        """Return [r], [r * r]."""
        return tuple(backend.arithmetic_tensor(share.to(device)) for share in self.source.deal(SquarePair(tuple(size))))

    def generate_binary_triple(self, first: Any, second: Any, device: Any = None) -> tuple[Any, ...]:
        """Return [a], [b], [a & b] in XOR shares."""
        shares = self.source.deal(AndTriple(tuple(first), tuple(second)))
        return tuple(backend.binary_tensor(share.to(device)) for share in shares)

    def B2A_rng(self, size: Any, device: Any = None) -> tuple[Any, ...]:  # noqa: N802
        """Return a random bit in additive and in XOR shares."""
        bit, ring = self.source.deal(RandomBit(tuple(size)))
        return backend.arithmetic_tensor(ring.to(device)), backend.binary_tensor(bit.to(device))

    def tuple_count(self) -> int:
        """Return the number of tuples that CrypTen has requested."""
        return len(self.request_cache)

    def requested_bytes(self) -> int:
        """Return the bytes of the dependent parts of all tuples that CrypTen has requested, from their shapes alone."""
        return WORD_BYTES * sum(_dependent_elements(name, args) for name, args, _ in self.request_cache)


def _dependent_elements(request: str, args: tuple[Any, ...]) -> int:
    """Return the number of elements of the dependent part of one request in CrypTen's trace."""
    if request == "generate_additive_triple" and args[2] == "matmul":
        (*batch, rows, _), (*second_batch, _, columns) = args[0], args[1]
        return _broadcast_size(batch, second_batch) * int(rows * columns)
    if request in ("generate_additive_triple", "generate_binary_triple"):
        return _broadcast_size(args[0], args[1])
    return math.prod(args[0])


def _broadcast_size(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of elements of two shapes broadcast together."""
    rank = max(len(a), len(b))
    a_padded, b_padded = ([1] * (rank - len(shape)) + list(shape) for shape in (a, b))
    return math.prod(x if y == 1 else y for x, y in zip(a_padded, b_padded, strict=True))
