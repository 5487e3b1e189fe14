"""Cost and work: communication and computation of an operation, as monoids independent of hardware."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Rounds, payload bytes that one party sends, and bytes of correlated randomness that must reach it.

    Rounds are exchanges that cannot start before the previous one has arrived; where the parties send different
    amounts, `bytes` is the larger one.
    """

    rounds: int = 0
    bytes: int = 0
    offline: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.rounds + other.rounds, self.bytes + other.bytes, self.offline + other.offline)

    def __rmul__(self, times: int) -> "Cost":
        return Cost(times * self.rounds, times * self.bytes, times * self.offline)


ZERO_COST = Cost()


@dataclass(frozen=True)
class Work:
    """Computation of one party for an operation.

    It is everything that party 0 of a real run computes. With the first-party dealer that includes the dealer's work,
    because party 0 makes the correlations in its own process: a product of m x k with k x n by a Beaver triple is three
    products online and one of the dealer's, 4 m k n multiply-accumulates. With another dealer the last is not its own.
    """

    macs: int = 0
    """Multiply-accumulates of matrix products in the ring."""
    elements: int = 0
    """Elements that all other tensor operations write, in words of 64 bits: eight bytes count as one."""
    random: int = 0
    """Bytes drawn from the PRG."""
    calls: int = 0
    """Calls of tensor operations of any size: on small tensors the calls take the time."""
    tuples: int = 0
    """Tuples requested by CrypTen, which looks up its settings for every product: slower than many calls."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.macs + other.macs,
            self.elements + other.elements,
            self.random + other.random,
            self.calls + other.calls,
            self.tuples + other.tuples,
        )

    def __rmul__(self, times: int) -> "Work":
        return Work(
            times * self.macs, times * self.elements, times * self.random, times * self.calls, times * self.tuples
        )
