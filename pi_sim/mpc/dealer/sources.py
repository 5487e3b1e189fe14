"""One party's end of the dealing: its shares of every correlation, in the order in which both parties ask for them.

Both parties expand their shares of uniformly random parts from streams of their own. Of the derived parts party 1
expands its shares too, so that party 0's follow from them: whoever knows both streams computes these, the dealer.
"""

# MERGED: A tape: which correlations a protocol asks for, in order. It is public, and all that a dealer needs to know.

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.dealer.prg import Prg, ShapePrg


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


@dataclass(frozen=True)
class MaskItem:
    """Something random that later correlations follow from."""

    part: TensorSpec

    bytes = 0

    def request(self, source: Source, numbers: list[int]) -> tuple[Tensor, ...]:
        """Ask the source for it, and note its number; nothing is sent."""
        numbers.append(source.persistent_mask(self.part)[0])
        return ()


@dataclass(frozen=True)
class CorrelationItem:
    """A correlation, and the places on the tape of what it follows from among all that was kept."""

    correlation: Correlation
    mask_indices: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """What must be sent to party 0."""
        return sum(part.bytes for part in self.correlation.dependent_parts)

    def request(self, source: Source, numbers: list[int]) -> tuple[Tensor, ...]:
        """Ask the source for it: its shares of the derived parts, which a dealer sends to party 0."""
        dealt = source.deal(self.correlation, *(numbers[place] for place in self.mask_indices))
        return dealt[len(self.correlation.random_parts) :]


DemandItem = MaskItem | CorrelationItem


@dataclass(frozen=True)
class Demand:
    """What is asked for once in a session, then for every sequence."""

    session: tuple[DemandItem, ...]
    sequence: tuple[DemandItem, ...]

    def offline_bytes(self, sequences: int) -> int:
        """What a dealer must send to party 0 for so many sequences."""
        once, each = (sum(entry.bytes for entry in entries) for entries in (self.session, self.sequence))
        return once + sequences * each

    def replay(self, source: Source, sequences: int) -> Iterator[tuple[Tensor, ...]]:
        """Ask a source for everything on the tape: the derived shares of one entry after another."""
        known: list[int] = []
        yield from (entry.request(source, known) for entry in self.session)
        for _ in range(sequences):
            numbers = known.copy()
            yield from (entry.request(source, numbers) for entry in self.sequence)


class RecordingSource(Source):
    """The source of a phantom: it writes down what is asked for. Derived parts come as if a dealer had sent them."""

    def __init__(self, mine: Prg) -> None:
        super().__init__(mine)
        self.items: list[DemandItem] = []

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        self.items.append(MaskItem(part))
        return super().persistent_mask(part)

    def deal(self, correlation: Correlation, *kept: int) -> tuple[Tensor, ...]:
        self.items.append(CorrelationItem(correlation, kept))
        return super().deal(correlation, *kept)

    def take_items(self) -> tuple[DemandItem, ...]:
        """What was asked for since the last time."""
        found, self.items = tuple(self.items), []
        return found

    def _shares(self, correlation: Correlation, kept: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        return self.own_prg.draw(*correlation.random_parts), ShapePrg().draw(*correlation.dependent_parts)


def raw_bytes(share: Tensor) -> memoryview:
    """The bytes of a share, as they are sent and stored: little-endian words, on the machines that this runs on."""
    return share.contiguous().view(-1).view(torch.uint8).numpy().data
