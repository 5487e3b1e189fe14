"""One party's end of the dealing: its shares of every correlation, in the order in which both parties ask for them.

Both parties expand their shares of uniformly random parts from streams of their own. Of the derived parts party 1
expands its shares too, so that party 0's follow from them: whoever knows both streams computes these, the dealer.
"""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec
from pi_sim.mpc.dealer.stream import Prg


class Source(ABC):
    """What a party asks; `offline` counts the bytes of derived parts, which is what a dealer must send to party 0."""

    device: torch.device | None = None
    """Where shares are wanted, if not on the processor."""

    def __init__(self, mine: Prg) -> None:
        self.own_prg = mine
        self.mask_count = 0
        self.offline_bytes = 0

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        """A random part that later correlations follow from: its number, and this party's share."""
        self.mask_count += 1
        (share,) = self.own_prg.draw(part, device=self.device)
        return self.mask_count - 1, share

    def deal(self, correlation: Correlation, *kept: int) -> tuple[Tensor, ...]:
        """Shares of the drawn parts, then of the derived ones, which may follow from kept parts too."""
        drawn, derived = self._shares(correlation, kept)
        self.offline_bytes += sum(share.nbytes for share in derived)
        return (*drawn, *derived)

    @abstractmethod
    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """This party's shares of the drawn and of the derived parts."""


class SeedSource(Source):
    """Party 1: all of its shares come from its own stream."""

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        drawn = correlation.random_parts
        shares = self.own_prg.draw(*drawn, *correlation.dependent_parts, device=self.device)
        return shares[: len(drawn)], shares[len(drawn) :]


class DealerSource(Source):
    """A dealer: it knows both streams, hence every value, and computes party 0's shares.

    Party 0 may play the dealer itself: right for counting and timing, not a deployment, since it could open everything.
    """

    def __init__(self, mine: Prg, theirs: Prg) -> None:
        """`theirs` is party 1's stream."""
        super().__init__(mine)
        self.peer_prg = theirs
        self.mask_values: list[Tensor] = []

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        number, share = super().persistent_mask(part)
        (other,) = self.peer_prg.draw(part, device=self.device)
        self.mask_values.append(part.join(share, other))
        return number, share

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        parts = correlation.random_parts
        mine = self.own_prg.draw(*parts, device=self.device)
        theirs = self.peer_prg.draw(*parts, *correlation.dependent_parts, device=self.device)
        joined = [part.join(*pair) for part, *pair in zip(parts, mine, theirs, strict=False)]
        found = correlation.derive(*joined, *(self.mask_values[number] for number in kept))
        values = zip(correlation.dependent_parts, found, theirs[len(parts) :], strict=True)
        return mine, [part.split(value, other) for part, value, other in values]


class ShareStream(Protocol):
    """Where a dealer's shares arrive, in order: a file or a connection."""

    def take(self, length: int) -> Tensor:
        """The next bytes, in memory of the caller's own; a `RunError` says why there are none."""


class StreamedSource(Source):
    """Party 0 with a dealer apart: its shares of derived parts come from a supply.

    `offline` counts the bytes that came out of it.
    """

    def __init__(self, mine: Prg, supply: ShareStream) -> None:
        super().__init__(mine)
        self.share_stream = supply

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        drawn = self.own_prg.draw(*correlation.random_parts, device=self.device)
        return drawn, [self._next_share(part) for part in correlation.dependent_parts]

    def _next_share(self, part: TensorSpec) -> Tensor:
        return self.share_stream.take(part.bytes).view(part.dtype).view(part.shape).to(self.device)
