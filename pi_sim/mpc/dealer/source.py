"""The dealer of our own kernels' correlations, with party 0 in its place."""

from typing import Protocol

from torch import Tensor

from pi_sim.mpc.dealer.correlation import Correlation, Part


class Drawn(Protocol):
    """Whatever parts can be drawn from."""

    def draw(self, part: Part) -> Tensor: ...


class Source:
    """One party's end: its shares of every correlation, in the order in which both parties ask for them.

    Party 1 expands all of its shares from its own stream. Party 0 holds both streams, as a dealer does, and makes its
    shares of the derived parts from them: right for counting and timing, not a deployment, since it could open
    everything. `offline` counts what an honest dealer would have to send to it.
    """

    def __init__(self, mine: Drawn, theirs: Drawn | None = None) -> None:
        """`theirs` is party 1's stream at party 0, and None at party 1."""
        self.mine, self.theirs = mine, theirs
        self.kept: list[Tensor] = []
        self.offline = 0

    def keep(self, part: Part) -> tuple[int, Tensor]:
        """A random part that later correlations follow from: its number, and this party's share."""
        share = self.mine.draw(part)
        self.kept.append(share if self.theirs is None else part.join(share, self.theirs.draw(part)))
        return len(self.kept) - 1, share

    def deal(self, correlation: Correlation, *kept: int) -> tuple[Tensor, ...]:
        """Shares of the drawn parts, then of the derived ones, which may follow from kept parts too."""
        drawn = [self.mine.draw(part) for part in correlation.drawn]
        derived = self._derived(correlation, drawn, kept)
        self.offline += sum(share.nbytes for share in derived)
        return (*drawn, *derived)

    def _derived(self, correlation: Correlation, drawn: list[Tensor], kept: tuple[int, ...]) -> list[Tensor]:
        if self.theirs is None:
            return [self.mine.draw(part) for part in correlation.derived]
        others = [self.theirs.draw(part) for part in correlation.drawn]
        joined = [part.join(*pair) for part, *pair in zip(correlation.drawn, drawn, others, strict=True)]
        found = correlation.derive(*joined, *(self.kept[number] for number in kept))
        values = zip(correlation.derived, found, strict=True)
        return [part.split(value, self.theirs.draw(part)) for part, value in values]
