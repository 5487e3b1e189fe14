"""Sources of correlated randomness: a party's shares of every correlation, in the order in which both request them.

Both parties expand their shares of uniformly random parts from PRGs of their own. Party 1 also expands its shares of
dependent parts, so party 0's follow from them; a dealer knows both PRGs and computes these.

The list of correlations that a protocol requests, in order, is a `Demand`. It is public, and all that a dealer needs.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.dealer.prg import Prg, ShapePrg


class Source(ABC):
    """A party's source of shares.

    `offline_bytes` counts the bytes of dependent parts, which a dealer must send to party 0.
    """

    device: torch.device | None = None
    """Device of the shares, None for the CPU."""

    rank = 0
    """Number of the party whose shares these are."""

    def __init__(self, own_prg: Prg) -> None:
        self.own_prg = own_prg
        self.mask_count = 0
        self.offline_bytes = 0

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        """Return the number of a new random tensor that later correlations may depend on, and this party's share."""
        self.mask_count += 1
        (share,) = draw_shares(self.own_prg, [part], self.rank, self.device)
        return self.mask_count - 1, share

    def deal(self, correlation: Correlation, *mask_ids: int) -> tuple[Tensor, ...]:
        """Return shares of the random parts, then of the dependent ones, which may depend on persistent masks too."""
        random, dependent = self._shares(correlation, mask_ids)
        self.offline_bytes += sum(share.nbytes for share in dependent)
        return (*random, *dependent)

    @abstractmethod
    def _shares(self, correlation: Correlation, mask_ids: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """Return this party's shares of the random and of the dependent parts."""


def draw_shares(prg: Prg, parts: Sequence[TensorSpec], rank: int, device: torch.device | None) -> list[Tensor]:
    """Return party `rank`'s shares of random parts from its PRG; a part of the other party is an empty tensor."""
    drawn = iter(prg.draw(*(part for part in parts if part.owner in (None, rank)), device=device))
    return [next(drawn) if part.owner in (None, rank) else torch.empty(0) for part in parts]


class SeedSource(Source):
    """Party 1: all shares come from its own PRG."""

    rank = 1

    def _shares(self, correlation: Correlation, mask_ids: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        parts = correlation.random_parts
        shares = draw_shares(self.own_prg, (*parts, *correlation.dependent_parts), self.rank, self.device)
        return shares[: len(parts)], shares[len(parts) :]


class DealerSource(Source):
    """A dealer: it knows both PRGs, hence every value, and computes party 0's shares.

    Party 0 may be the dealer itself, which suits counting and timing. It is no deployment: party 0 could then open
    everything.
    """

    def __init__(self, own_prg: Prg, peer_prg: Prg) -> None:
        """`own_prg` is party 0's, `peer_prg` party 1's."""
        super().__init__(own_prg)
        self.peer_prg = peer_prg
        self.mask_values: list[Tensor] = []

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        number, share = super().persistent_mask(part)
        (peer_share,) = draw_shares(self.peer_prg, [part], 1, self.device)
        self.mask_values.append(part.join(share, peer_share))
        return number, share

    def _shares(self, correlation: Correlation, mask_ids: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        parts, dependent_parts = correlation.random_parts, correlation.dependent_parts
        shares = draw_shares(self.own_prg, parts, self.rank, self.device)
        peer_shares = draw_shares(self.peer_prg, (*parts, *dependent_parts), 1, self.device)
        values = [part.join(*pair) for part, *pair in zip(parts, shares, peer_shares, strict=False)]
        dependent = correlation.derive(*values, *(self.mask_values[number] for number in mask_ids))
        triples = zip(dependent_parts, dependent, peer_shares[len(parts) :], strict=True)
        return shares, [part.split(value, peer_share) for part, value, peer_share in triples]


class ShareStream(Protocol):
    """A file or a connection from which a dealer's shares are read, in order."""

    def take(self, length: int) -> Tensor:
        """Return the next bytes, in memory of the caller's own; a `RunError` says why there are none."""


class StreamedSource(Source):
    """Party 0 with an external dealer: its shares of dependent parts come from a stream, and are counted there."""

    def __init__(self, own_prg: Prg, share_stream: ShareStream) -> None:
        super().__init__(own_prg)
        self.share_stream = share_stream

    def _shares(self, correlation: Correlation, mask_ids: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        shares = draw_shares(self.own_prg, correlation.random_parts, self.rank, self.device)
        streamed = ((part, self.share_stream.take(part.bytes)) for part in correlation.dependent_parts)
        return shares, [share.view(part.dtype).view(part.shape).to(self.device) for part, share in streamed]


@dataclass(frozen=True)
class MaskItem:
    """A persistent mask."""

    part: TensorSpec

    bytes = 0

    def request(self, source: Source, mask_ids: list[int]) -> tuple[Tensor, ...]:
        """Request the mask from the source and append its number to `mask_ids`; nothing is sent."""
        mask_ids.append(source.persistent_mask(self.part)[0])
        return ()


@dataclass(frozen=True)
class CorrelationItem:
    """A correlation, with the indices of the masks that it depends on among all masks of the demand."""

    correlation: Correlation
    mask_indices: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes that must be sent to party 0."""
        return sum(part.bytes for part in self.correlation.dependent_parts)

    def request(self, source: Source, mask_ids: list[int]) -> tuple[Tensor, ...]:
        """Request the correlation; return the shares of its dependent parts, which a dealer sends to party 0."""
        shares = source.deal(self.correlation, *(mask_ids[index] for index in self.mask_indices))
        return shares[len(self.correlation.random_parts) :]


DemandItem = MaskItem | CorrelationItem


@dataclass(frozen=True)
class Demand:
    """Requests that are made once in a session, and requests that are made for every sequence."""

    session: tuple[DemandItem, ...]
    sequence: tuple[DemandItem, ...]

    def offline_bytes(self, sequences: int) -> int:
        """Return the bytes that a dealer must send to party 0 for a number of sequences."""
        session, sequence = (sum(item.bytes for item in items) for items in (self.session, self.sequence))
        return session + sequences * sequence

    def replay(self, source: Source, sequences: int) -> Iterator[tuple[Tensor, ...]]:
        """Request every item from a source; yield the dependent shares item by item."""
        session_masks: list[int] = []
        yield from (item.request(source, session_masks) for item in self.session)
        for _ in range(sequences):
            masks = session_masks.copy()
            yield from (item.request(source, masks) for item in self.sequence)


class RecordingSource(Source):
    """The source of a dry run: it records requests. Dependent parts are counted as if a dealer had sent them."""

    def __init__(self, own_prg: Prg, rank: int = 0) -> None:
        super().__init__(own_prg)
        self.rank = rank
        self.items: list[DemandItem] = []

    def persistent_mask(self, part: TensorSpec) -> tuple[int, Tensor]:
        self.items.append(MaskItem(part))
        return super().persistent_mask(part)

    def deal(self, correlation: Correlation, *mask_ids: int) -> tuple[Tensor, ...]:
        self.items.append(CorrelationItem(correlation, mask_ids))
        return super().deal(correlation, *mask_ids)

    def take_items(self) -> tuple[DemandItem, ...]:
        """Return the requests since the last call."""
        items, self.items = tuple(self.items), []
        return items

    def _shares(self, correlation: Correlation, mask_ids: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
        shares = draw_shares(self.own_prg, correlation.random_parts, self.rank, self.device)
        return shares, ShapePrg().draw(*correlation.dependent_parts)


def raw_bytes(share: Tensor) -> memoryview:
    """Return the bytes of a share, as they are sent and stored: little-endian words, on the supported machines.

    They are not copied if the share is contiguous and on the CPU.
    """
    return share.contiguous().view(-1).view(torch.uint8).cpu().numpy().data
