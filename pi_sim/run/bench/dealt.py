"""Randomness that lies ready before a kernel asks for it, so that what it takes online can be timed alone."""

from collections import deque

from torch import Tensor

from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec
from pi_sim.mpc.dealer.source import Source

CorrelationRequest = tuple[Correlation, tuple[int, ...]]
"""A correlation that was asked for, and the numbers of what it follows from."""
PartShares = tuple[list[Tensor], list[Tensor]]


class LoggingSource(Source):
    """A source that hands out another one's shares and notes what was asked for."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.own_prg)
        self.source = source
        self.requests: list[CorrelationRequest] = []

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        return self.source.persistent_mask(part)

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> PartShares:
        self.requests.append((correlation, kept))
        return _split_parts(correlation, self.source.deal(correlation, *kept))


class PreloadedSource(Source):
    """A source that was asked for everything on the notes beforehand: fresh shares, all of them in memory."""

    def __init__(self, source: Source, notes: list[CorrelationRequest]) -> None:
        super().__init__(source.own_prg)
        self.ready = deque((correlation, source.deal(correlation, *kept)) for correlation, kept in notes)

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> PartShares:
        noted, shares = self.ready.popleft()
        assert noted == correlation
        return _split_parts(correlation, shares)


def _split_parts(correlation: Correlation, shares: tuple[Tensor, ...]) -> PartShares:
    """Those of the drawn parts, and those of the derived ones."""
    drawn = len(correlation.random_parts)
    return list(shares[:drawn]), list(shares[drawn:])
