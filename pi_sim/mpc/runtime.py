"""The runtime of a party: openings to both parties, and correlated randomness from a dealer.

Primitives and kernels take a `Runtime` as their first argument: where one of ours communicates, `rt` stands in the
text. Kernels of stock CrypTen call its tensors, which find the same communicator and provider in CrypTen itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pi_sim.mpc import backend
from pi_sim.mpc.dealer.correlations import Correlation
from pi_sim.mpc.dealer.sources import Source
from pi_sim.mpc.openings import (
    NARROW_BITS,
    WIDE_BITS,
    AdditiveOpening,
    Opening,
    XorOpening,
    pack_low_bits,
    packed_length,
    unpack_low_bits,
)
from pi_sim.specs import ExecutableProtocol

SERVER, CLIENT = 0, 1
"""Ranks of the parties."""


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
        """The party's number, SERVER or CLIENT."""
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

    def open(self, *openings: Opening) -> list[Tensor]:
        """Open shares of any kind to both parties, all in 1 round; see `pi_sim.mpc.openings` for their bytes."""
        words = [opening.pack() for opening in openings]
        message = words[0] if len(words) == 1 else torch.cat(words)
        peer_message = self.communicator.all_gather(message)[1 - self.rank]
        pieces = torch.split(peer_message, [len(piece) for piece in words])
        return [opening.combine(*pair) for opening, *pair in zip(openings, words, pieces, strict=True)]

    def reveal_u32(self, share: Tensor) -> Tensor:
        """Open additive shares modulo 2^32 to both parties: 1 round, 4 bytes per element, padded to 8."""
        return self.open(AdditiveOpening(share, NARROW_BITS))[0]

    def reveal_bits(self, share: Tensor, bits: int) -> Tensor:
        """Open XOR shares of the lowest `bits` bits of bytes: 1 round, `bits` bits per element, padded to words."""
        return self.open(XorOpening(share, bits))[0]

    def send(self, receiver: int, *tensors: Tensor, bits: int = WIDE_BITS) -> list[Tensor]:
        """Send the low `bits` bits of words to one party, all in 1 round; the receiver gets the sender's tensors.

        The receiver's own tensors only tell shapes and device, and the sender gets its own back. bits / 8 bytes per
        element, in one direction.
        """
        if self.rank != receiver:
            self.communicator.gather([pack_low_bits(tensor, bits) for tensor in tensors], receiver, batched=True)
            return list(tensors)
        like = [tensor.new_empty(packed_length(tensor.numel(), bits), dtype=torch.int64) for tensor in tensors]
        messages = self.communicator.gather(like, receiver, batched=True)
        return [unpack_low_bits(message, bits, tensor) for message, tensor in zip(messages, tensors, strict=True)]
