"""Where correlated randomness comes from, and how many bytes of it must reach a party.

Offline bytes follow CrypTen's third-party provider: both parties expand their shares of a tuple from seeds, except
party 0's share of its dependent part (the product, the square, the arithmetic copy of a bit), which must be sent.
"""

from typing import Any

from pi_sim.mpc.backend import TrustedFirstParty

WORD = 8


class FirstParty(TrustedFirstParty):  # type: ignore[misc]
    """CrypTen's default provider: party 0 makes all tuples itself, so it could open everything.

    Right for counting and timing, not a deployment. `offline` is what an honest dealer would have to send to party 0.
    """

    NAME = "first-party"

    def __init__(self) -> None:
        super().__init__()
        self.offline = 0

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
        self.offline += tuples[sent].share.nelement() * WORD
        return tuples
