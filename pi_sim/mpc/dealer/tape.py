"""A tape: which correlations a protocol asks for, in order. It is public, and all that a dealer needs to know."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pi_sim.mpc.dealer.correlation import Correlation, TensorSpec
from pi_sim.mpc.dealer.source import Source
from pi_sim.mpc.dealer.stream import Prg, ShapePrg


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
