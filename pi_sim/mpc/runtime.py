"""What the kernels of our own ask for: shares of correlations, and openings to both parties."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from pi_sim.mpc.dealer.correlations import Correlation, TensorSpec
from pi_sim.mpc.dealer.sources import Source

WORD = 8


@dataclass
class Runtime:
    """A party's communicator and dealer while it runs, and how many bytes of derived parts were asked of the dealer.

    `asked` are those that kernels of our own asked for; `crypten` tells what CrypTen did.
    """

    communicator: Any
    source: Source
    crypten: "CrypTenRequests | None"
    requested_bytes: int = 0


class CrypTenRequests(Protocol):
    """CrypTen's trace of what it asked for: how many tuples, and the bytes of their derived parts."""

    def tuple_count(self) -> int: ...
    def requested_bytes(self) -> int: ...


_current_runtime: ContextVar[Runtime] = ContextVar("running")


@contextmanager
def activate(communicator: Any, source: Source, crypten: CrypTenRequests | None = None) -> Iterator[None]:
    """Kernels that are called inside, in this thread, use this communicator and this dealer."""
    before = _current_runtime.set(Runtime(communicator, source, crypten))
    try:
        yield
    finally:
        _current_runtime.reset(before)


def _runtime() -> Runtime:
    return _current_runtime.get()


def rank() -> int:
    """0 is the server, 1 the client."""
    return int(_runtime().communicator.get_rank())


def correlated(correlation: Correlation, *kept: int) -> tuple[Tensor, ...]:
    """This party's shares of a correlation's parts, which may follow from what was kept."""
    running = _runtime()
    running.requested_bytes += sum(part.bytes for part in correlation.dependent_parts)
    return running.source.deal(correlation, *kept)


def requested_bytes() -> int:
    """Bytes of derived parts that the dealer was asked for so far, by us and by CrypTen, from their shapes alone."""
    running = _runtime()
    return running.requested_bytes + (running.crypten.requested_bytes() if running.crypten else 0)


def tuple_count() -> int:
    """How many tuples CrypTen asked for so far."""
    running = _runtime()
    return running.crypten.tuple_count() if running.crypten else 0


def persistent_mask(part: TensorSpec) -> tuple[int, Tensor]:
    """A number for something random that later correlations follow from, and this party's share of it."""
    return _runtime().source.persistent_mask(part)


def reveal(*shares: Tensor) -> list[Tensor]:
    """Open sums in the ring to both parties: 1 round, 8 bytes for each element."""
    opened: list[Tensor] = _runtime().communicator.all_reduce(list(shares), batched=True)
    return opened


def reveal_u32(share: Tensor) -> Tensor:
    """Open sums in the ring of 32-bit words to both parties: 1 round, 4 bytes for each element, filled up to 8.

    Sums of whole words would carry over, so the parties exchange what they hold and add up by themselves.
    """
    mine = _pad_to_words(share)
    theirs = _runtime().communicator.all_reduce(mine, op=ReduceOp.BXOR) ^ mine
    found: Tensor = share + theirs.view(share.dtype)[: len(share)]
    return found


def reveal_bits(share: Tensor, bits: int) -> Tensor:
    """Open exclusive-or shares of the lowest bits of bytes: 1 round, `bits` bits each, filled up to whole words.

    A byte carries as many of them as fit.
    """
    together = 8 // bits
    flat = share.reshape(-1)
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % (WORD * together))).view(together, -1)
    packed = _pad_to_words(reduce(or_, (row << bits * place for place, row in enumerate(rows))))
    opened: Tensor = _runtime().communicator.all_reduce(packed, op=ReduceOp.BXOR).view(torch.uint8)
    if together == 1:
        return opened[: len(flat)].view(share.shape)
    pieces = [(opened >> bits * place) & (2**bits - 1) for place in range(together)]
    return torch.cat(pieces)[: len(flat)].view(share.shape)


def _pad_to_words(flat: Tensor) -> Tensor:
    """Shorter numbers filled up to words of 64 bits."""
    each = WORD // flat.dtype.itemsize
    return torch.nn.functional.pad(flat, (0, -len(flat) % each)).view(torch.int64)
