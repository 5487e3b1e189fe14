"""Where correlated randomness comes from, and how many bytes of it must reach a party.

Offline bytes follow CrypTen's third-party provider: both parties expand their shares of a tuple from seeds, except
party 0's share of its dependent part (the product, the square, the arithmetic copy of a bit), which must be sent.
"""

import math
from collections.abc import Sequence
from typing import Any

from pi_sim.mpc.backend import TrustedFirstParty
from pi_sim.mpc.dealer.source import Source

WORD = 8


class FirstParty(TrustedFirstParty):  # type: ignore[misc]
    """CrypTen's default provider: party 0 makes all tuples itself, so it could open everything.

    Right for counting and timing, not a deployment. It counts twice what an honest dealer would have to send to party
    0: `produced` adds up the tuples that it makes, `requested` goes through CrypTen's own trace of what was asked for.
    """

    NAME = "first-party"

    def __init__(self, source: Source) -> None:
        """`source` deals the correlations of our own kernels."""
        super().__init__()
        self.source = source
        self.produced = 0
        self.trace()

    def generate_additive_triple(self, *args: Any, **kwargs: Any) -> Any:
        """[a], [b], [a op b] for a product: the last is sent."""
        return self._count(super().generate_additive_triple(*args, **kwargs), sent=2)

    def square(self, *args: Any, **kwargs: Any) -> Any:
        """[r], [r * r]: the second is sent."""
        return self._count(super().square(*args, **kwargs), sent=1)

    def generate_binary_triple(self, *args: Any, **kwargs: Any) -> Any:
        """[a], [b], [a & b] in exclusive-or shares: the last is sent."""
        return self._count(super().generate_binary_triple(*args, **kwargs), sent=2)

    def B2A_rng(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        """A random bit in arithmetic and in exclusive-or shares: the first is sent."""
        return self._count(super().B2A_rng(*args, **kwargs), sent=0)

    def _count(self, tuples: tuple[Any, ...], sent: int) -> tuple[Any, ...]:
        self.produced += tuples[sent].share.nelement() * WORD
        return tuples

    def requested(self) -> int:
        """Bytes of the dependent parts of all tuples asked for so far, from their shapes alone, and of correlations."""
        return self.source.offline + WORD * sum(_elements(name, args) for name, args, _ in self.request_cache)


def _elements(request: str, args: tuple[Any, ...]) -> int:
    """Elements of the dependent part of one request of CrypTen's trace."""
    if request == "generate_additive_triple" and args[2] == "matmul":
        (*batch, rows, _), (*other, _, columns) = args[0], args[1]
        return _broadcast(batch, other) * int(rows * columns)
    if request in ("generate_additive_triple", "generate_binary_triple"):
        return _broadcast(args[0], args[1])
    return math.prod(args[0])


def _broadcast(a: Sequence[int], b: Sequence[int]) -> int:
    """Elements of two shapes broadcast together."""
    rank = max(len(a), len(b))
    one, other = ([1] * (rank - len(shape)) + list(shape) for shape in (a, b))
    return math.prod(x if y == 1 else y for x, y in zip(one, other, strict=True))
