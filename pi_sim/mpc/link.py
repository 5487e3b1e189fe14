"""The link: CrypTen's communicator over one TCP connection, with a counter and a clock of its own.

A message is a header (sequence number, payload length, time of sending) and the payload, the shares as little-endian
64-bit words. Both parties send and receive at once; a network can be imitated by holding arrived messages back.
"""

import queue
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from pi_sim.errors import RunError
from pi_sim.mpc import wire
from pi_sim.mpc.backend import Communicator, counted
from pi_sim.network import Network

HEADER = struct.Struct("<IQd")
WORD = 8


class Link(Communicator):  # type: ignore[misc]
    """One party's end of a two-party connection.

    `rounds` and `sent` count the payload handed to the socket, `received` what came out of it: one party's `sent` must
    be the other's `received`. CrypTen's own counter (`comm_rounds`, `comm_bytes`: sent plus received) runs beside
    them and shares no code with them.
    Every failure of the connection is a `RunError`: the other party closed it, was silent for longer than the socket's
    time-out, or sent something else than the protocol's next message.
    """

    BYTES_PER_ELEMENT = WORD

    def __init__(self, connection: socket.socket, rank: int, network: Network | None = None) -> None:
        self.connection, self.rank, self.network = connection, rank, network
        self.failure: RunError | None = None
        self.rounds = self.sent = self.received = 0
        self.free_at = 0.0
        self.reset_communication_stats()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.outbox: queue.SimpleQueue[tuple[int, list[Tensor]] | None] = queue.SimpleQueue()
        self.sender = threading.Thread(target=self._send_all, daemon=True)
        self.sender.start()

    # What CrypTen calls.

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return 2

    @counted  # type: ignore[untyped-decorator]
    def all_reduce(self, shares: Any, op: Any = ReduceOp.SUM, batched: bool = False) -> Any:
        """Open to both: one round, each sends its shares. A batch of tensors is one message."""
        mine = shares if batched else [shares]
        self._put(mine)
        opened = [_combine(one, other, op) for one, other in zip(mine, self._get(mine), strict=True)]
        return opened if batched else opened[0]

    @counted  # type: ignore[untyped-decorator]
    def reduce(self, share: Tensor, dst: int, op: Any = ReduceOp.SUM) -> Tensor | None:
        """Open to `dst` alone: one round in which the other party sends its share."""
        if self.rank != dst:
            self._put([share])
            return None
        self.rounds += 1
        return _combine(share, self._get([share])[0], op)

    # Messages.

    def _put(self, tensors: Sequence[Tensor]) -> None:
        """Hand a message to the sending thread."""
        self.rounds += 1
        self.sent += _length(tensors)
        self.outbox.put((self.rounds, [tensor.contiguous() for tensor in tensors]))

    def _get(self, like: Sequence[Tensor]) -> list[Tensor]:
        """The other party's next message, in the shapes of `like`."""
        tensors = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in like]
        expected = _length(tensors)
        number, length, sent_at = HEADER.unpack(self._receive(bytearray(HEADER.size)))
        if (number, length) != (self.rounds, expected):
            raise RunError(
                f"the other party sent message {number} of {length} bytes where message {self.rounds} of {expected} "
                "bytes was due."
            )
        for tensor in tensors:
            self._receive(_payload(tensor))
        self.received += length
        self._hold_back(sent_at, length)
        return tensors

    def _receive(self, buffer: bytearray | memoryview) -> bytearray | memoryview:
        """Fill the buffer; when the connection is down because sending failed, say why that was."""
        try:
            return wire.receive(self.connection, buffer)
        except RunError as error:
            raise self.failure or error from None

    def _hold_back(self, sent_at: float, length: int) -> None:
        """Wait until the imitated network would have delivered a message of `length` bytes."""
        if self.network:
            self.free_at = max(self.free_at, sent_at) + 8 * length / self.network.bandwidth
            time.sleep(max(0.0, self.free_at + self.network.latency - time.time()))

    def _send_all(self) -> None:
        """The sending thread: a failure shuts the connection, which ends the receiving side's wait."""
        try:
            while message := self.outbox.get():
                number, tensors = message
                wire.send(self.connection, HEADER.pack(number, _length(tensors), time.time()))
                for tensor in tensors:
                    wire.send(self.connection, _payload(tensor))
        except RunError as error:
            self.failure = error
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Send what is still waiting, then close the connection."""
        self.outbox.put(None)
        self.sender.join()
        self.connection.close()
        if self.failure:
            raise self.failure


def _length(tensors: Sequence[Tensor]) -> int:
    """The payload of a message, in bytes."""
    return WORD * sum(tensor.nelement() for tensor in tensors)


def _payload(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, in place."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _combine(mine: Tensor, theirs: Tensor, op: Any) -> Tensor:
    """The value that two shares hold: their sum in the ring, or their exclusive or."""
    return mine ^ theirs if op == ReduceOp.BXOR else mine + theirs
