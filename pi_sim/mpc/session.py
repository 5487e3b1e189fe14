"""What the kernels of our own ask for: shares of correlations, and openings to both parties."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from pi_sim.mpc.dealer.correlation import Correlation, Part
from pi_sim.mpc.dealer.source import Source

WORD = 8


@dataclass(frozen=True)
class Session:
    """A party's communicator and dealer while it runs."""

    communicator: Any
    source: Source


_running: ContextVar[Session] = ContextVar("running")


@contextmanager
def run(communicator: Any, source: Source) -> Iterator[None]:
    """Kernels that are called inside, in this thread, use this communicator and this dealer."""
    before = _running.set(Session(communicator, source))
    try:
        yield
    finally:
        _running.reset(before)


def _session() -> Session:
    return _running.get()


def rank() -> int:
    """0 is the server, 1 the client."""
    return int(_session().communicator.get_rank())


def deal(correlation: Correlation, *kept: int) -> tuple[Tensor, ...]:
    """This party's shares of a correlation's parts, which may follow from what was kept."""
    return _session().source.deal(correlation, *kept)


def keep(part: Part) -> tuple[int, Tensor]:
    """A number for something random that later correlations follow from, and this party's share of it."""
    return _session().source.keep(part)


def reveal(*shares: Tensor) -> list[Tensor]:
    """Open sums in the ring to both parties: 1 round, 8 bytes for each element."""
    opened: list[Tensor] = _session().communicator.all_reduce(list(shares), batched=True)
    return opened


def reveal_bits(*shares: Tensor) -> list[Tensor]:
    """Open exclusive-or shares of bytes to both parties: 1 round, their bytes, filled up to whole words."""
    flat = torch.cat([share.reshape(-1) for share in shares])
    filled = torch.nn.functional.pad(flat, (0, -len(flat) % WORD))
    words: Tensor = _session().communicator.all_reduce(filled.view(torch.int64), op=ReduceOp.BXOR)
    pieces = torch.split(words.view(torch.uint8)[: len(flat)], [share.numel() for share in shares])
    return [piece.view(share.shape) for piece, share in zip(pieces, shares, strict=True)]
