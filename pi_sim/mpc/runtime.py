"""The runtime of a party: openings to both parties, and correlated randomness from a dealer.

Primitives and kernels take a `Runtime` as their first argument: where one of ours communicates, `rt` stands in the
text. Kernels of stock CrypTen call its tensors, which find the same communicator and provider in CrypTen itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlations import Correlation
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.specs import ExecutableProtocol


class Runtime:
    """One party of a two-party computation: its communicator and its source of correlated randomness.

    Rounds and bytes in the docstrings are those of one party; offline bytes are what a dealer sends to party 0.
    """

    def __init__(self, communicator: Any, source: Source, provider: backend.Provider | None = None) -> None:
        """`provider` answers CrypTen's requests for tuples; without one, only kernels that do not use CrypTen run."""
        self.communicator, self.source = communicator, source
        self._provider = provider
        self._own_requested_bytes = 0

    @classmethod
    @contextmanager
    def running(cls, communicator: Any, source: Source, protocol: ExecutableProtocol) -> Iterator["Runtime"]:
        """Context in which kernels run over `communicator` with a protocol's settings of CrypTen, without gradients."""
        provider = backend.Provider(source)
        with backend.crypten_context(communicator, provider, protocol.settings), torch.no_grad():
            yield cls(communicator, source, provider)

    @property
    def rank(self) -> int:
        """The party's number: 0 is the server, 1 the client."""
        return int(self.communicator.get_rank())

    @property
    def requested_bytes(self) -> int:
        """Offline bytes requested so far, by our kernels and by CrypTen, computed from the shapes of the requests."""
        return self._own_requested_bytes + (self._provider.requested_bytes() if self._provider else 0)

    @property
    def tuple_count(self) -> int:
        """Number of tuples that CrypTen requested so far."""
        return self._provider.tuple_count() if self._provider else 0

    def correlated(self, correlation: Correlation, *mask_ids: int) -> tuple[Tensor, ...]:
        """Return this party's shares of a correlation's parts: the random ones, then the dependent ones.

        `mask_ids` are the numbers of the persistent masks that the dependent parts follow from as well.
        """
        self._own_requested_bytes += sum(part.bytes for part in correlation.dependent_parts)
        return self.source.deal(correlation, *mask_ids)

    def reveal(self, *shares: Tensor) -> list[Tensor]:
        """Open additive shares of 64-bit words to both parties, all tensors in 1 round; 8 bytes per element."""
        values: list[Tensor] = self.communicator.all_reduce(list(shares), batched=True)
        return values

    def reveal_u32(self, share: Tensor) -> Tensor:
        """Open additive shares (n) of 32-bit words to both parties: 1 round, 4 bytes per element, padded to 8.

        Adding up packed words would carry from one 32-bit word into the next, so the parties exchange their shares
        by XOR, and each adds up by itself.
        """
        local_share = _pad_to_words(share)
        peer_share = self.communicator.all_reduce(local_share, op=ReduceOp.BXOR) ^ local_share
        value: Tensor = share + peer_share.view(share.dtype)[: len(share)]
        return value

    def reveal_bits(self, share: Tensor, bits: int) -> Tensor:
        """Open XOR shares of the lowest `bits` bits of bytes: 1 round, `bits` bits per element, padded to words.

        As many elements are packed into a byte as fit.
        """
        per_byte = 8 // bits
        flat = share.reshape(-1)
        rows = torch.nn.functional.pad(flat, (0, -len(flat) % (WORD_BYTES * per_byte))).view(per_byte, -1)
        packed = _pad_to_words(reduce(or_, (row << bits * index for index, row in enumerate(rows))))
        values: Tensor = self.communicator.all_reduce(packed, op=ReduceOp.BXOR).view(torch.uint8)
        if per_byte > 1:
            values = torch.cat([(values >> bits * index) & (2**bits - 1) for index in range(per_byte)])
        return values[: len(flat)].view(share.shape)


def _pad_to_words(flat: Tensor) -> Tensor:
    """Return a tensor (n) of shorter words, padded with zeros, as 64-bit words."""
    per_word = WORD_BYTES // flat.dtype.itemsize
    return torch.nn.functional.pad(flat, (0, -len(flat) % per_word)).view(torch.int64)
