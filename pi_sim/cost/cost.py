"""Cost: what a protocol communicates, as a monoid that knows no hardware."""

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
