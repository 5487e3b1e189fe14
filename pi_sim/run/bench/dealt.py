"""Randomness that lies ready before a kernel asks for it, so that what it takes online can be timed alone."""

from collections import deque

from torch import Tensor

from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.dealer.source import Source

Note = tuple[Correlation, tuple[int, ...]]
"""A correlation that was asked for, and the numbers of what it follows from."""
Shares = tuple[list[Tensor], list[Tensor]]


class Noting(Source):
    """A source that hands out another one's shares and notes what was asked for."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.own_prg)
        self.source = source
        self.requests: list[Note] = []

    def persistent_mask(self, part: Part) -> tuple[int, Tensor]:
        return self.source.persistent_mask(part)

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> Shares:
        self.requests.append((correlation, kept))
        return _apart(correlation, self.source.deal(correlation, *kept))


class Ready(Source):
    """A source that was asked for everything on the notes beforehand: fresh shares, all of them in memory."""

    def __init__(self, source: Source, notes: list[Note]) -> None:
        super().__init__(source.own_prg)
        self.ready = deque((correlation, source.deal(correlation, *kept)) for correlation, kept in notes)

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> Shares:
        noted, shares = self.ready.popleft()
        assert noted == correlation
        return _apart(correlation, shares)


def _apart(correlation: Correlation, shares: tuple[Tensor, ...]) -> Shares:
    """Those of the drawn parts, and those of the derived ones."""
    drawn = len(correlation.random_parts)
    return list(shares[:drawn]), list(shares[drawn:])
