"""The link: CrypTen's communicator over a connection of two parties, with counters and a clock of its own.

A message is a header (its number, its payload's length, and the sender's chain of times) and the payload, the shares as
little-endian 64-bit words. Both parties send and receive at once. A network can be imitated by holding back messages
that have arrived.

Seconds are those of the critical path. Two parties compute at once and wait for each other, so the time that one spends
in its link is not the network's: the other party may still be computing, or a message may travel while this party
computes. A message therefore carries its sender's chain of times, and the receiver continues the longer of the two
chains. Every second of the run then belongs to the network or to one party.
"""

import queue
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from pi_sim.errors import RunError
from pi_sim.mpc.backend import Communicator, log_communication
from pi_sim.mpc.dealer.sources import raw_bytes
from pi_sim.mpc.primitives.ring import WORD_BYTES
from pi_sim.mpc.transport.connection import Connection, receive_at_least, send_all
from pi_sim.network import Network

ChainStamp = tuple[float, ...]
"""Time of sending, then the sender's chain in seconds: network, delay, own computing, the other party's computing."""


class CriticalPath:
    """One party's chain, in seconds: in the `network`, computing itself, and waiting for the other party to compute.

    `delay` is the lateness of messages behind an imitated network, because handling them takes time, or because other
    work keeps the machine busy. Times are those of the system's monotonic clock, which all processes of one machine
    share. Parties on two machines have no common clock; there all waiting counts as network.
    """

    def __init__(self, common_clock: bool) -> None:
        self.common_clock = common_clock
        self.network = self.delay = self.own_compute = self.peer_compute = 0.0
        self.since = time.monotonic()

    def on_send(self) -> ChainStamp:
        """Add the time since the last message to this party's computing; return the stamp to send."""
        now = time.monotonic()
        self.own_compute += now - self.since
        self.since = now
        return now, self.network, self.delay, self.own_compute, self.peer_compute

    def on_receive(self, stamp: ChainStamp, due: float | None) -> None:
        """Continue the longer chain after a message, which an imitated network would have delivered at `due`."""
        now, sent_at = time.monotonic(), stamp[0]
        start = self.since
        if self.common_clock and (sent_at if due is None else due) > self.since:
            _, self.network, self.delay, self.peer_compute, self.own_compute = stamp
            start = sent_at
        delivered = now if due is None else max(start, due)
        self.network += delivered - start
        self.delay += now - delivered
        self.since = now


HEADER = struct.Struct("<QQ5d")
SMALL_MESSAGE_BYTES = 2**14
"""Bytes that any socket accepts at once: the parties are in step, so all earlier messages have been read."""
SPIN_S = 150e-6
"""Limit on the overshoot of a sleep, in seconds."""


class Link(Communicator):  # type: ignore[misc]
    """One party's end of a two-party connection.

    `rounds` and `sent` count messages and payload handed to the connection, `received` the payload that came out of it:
    one party's `sent` must equal the other's `received`. CrypTen's own counter (`comm_rounds`, `comm_bytes`: sent plus
    received) runs beside them and shares no code with them. Every failure of the connection is a `RunError`: the other
    party closed it, was silent for longer than the socket's time-out, or sent anything but the next message.
    """

    BYTES_PER_ELEMENT = WORD_BYTES

    def __init__(
        self, connection: Connection, rank: int, network: Network | None = None, common_clock: bool = True
    ) -> None:
        self.connection, self.rank, self.network = connection, rank, network
        self.failure: RunError | None = None
        self.rounds = self.sent = self.received = 0
        self.link_free_at = 0.0
        self.critical_path = CriticalPath(common_clock)
        self.reset_communication_stats()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.queued_count = self.sent_count = 0
        self.outbox: queue.SimpleQueue[list[bytes | memoryview] | None] = queue.SimpleQueue()
        self.sender = threading.Thread(target=self._run_sender, daemon=True)
        self.sender.start()

    # CrypTen's interface.

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return 2

    @log_communication  # type: ignore[untyped-decorator]
    def all_reduce(self, shares: Any, op: Any = ReduceOp.SUM, batched: bool = False) -> Any:
        """Open shares to both parties: 1 round, in which each sends its share. A batch of tensors is one message."""
        own_shares = shares if batched else [shares]
        self._send_message(own_shares)
        pairs = zip(own_shares, self._receive_message(own_shares), strict=True)
        values = [_combine_shares(own_share, peer_share, op) for own_share, peer_share in pairs]
        return values if batched else values[0]

    @log_communication  # type: ignore[untyped-decorator]
    def reduce(self, share: Tensor, dst: int, op: Any = ReduceOp.SUM) -> Tensor | None:
        """Open a share to party `dst` only: 1 round, in which the other party sends its share."""
        if self.rank != dst:
            self._send_message([share])
            return None
        self.rounds += 1
        self.critical_path.on_send()
        return _combine_shares(share, self._receive_message([share])[0], op)

    @log_communication  # type: ignore[untyped-decorator]
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Exchange a tensor: 1 round; return party 0's and party 1's."""
        self._send_message([tensor])
        (peer_tensor,) = self._receive_message([tensor])
        return [tensor, peer_tensor] if self.rank == 0 else [peer_tensor, tensor]

    @log_communication  # type: ignore[untyped-decorator]
    def gather(self, tensors: list[Tensor], dst: int, batched: bool = True) -> list[Tensor] | None:
        """Send tensors to party `dst` alone, in one message: 1 round; return the other party's there, None here."""
        if self.rank != dst:
            self._send_message(tensors)
            return None
        self.rounds += 1
        self.critical_path.on_send()
        return self._receive_message(tensors)

    # Messages.

    def _send_message(self, tensors: Sequence[Tensor]) -> None:
        """Send a message: a small one at once, a large one from the sending thread, so that both parties can send."""
        payloads = [raw_bytes(tensor) for tensor in tensors]
        length = sum(map(len, payloads))
        self.rounds += 1
        self.sent += length
        header = HEADER.pack(self.rounds, length, *self.critical_path.on_send())
        sender_is_idle = self.queued_count == self.sent_count
        if length <= SMALL_MESSAGE_BYTES and sender_is_idle:
            send_all(self.connection, b"".join([header, *payloads]))
        else:
            self.queued_count += 1
            self.outbox.put([header, *payloads])

    def _receive_message(self, like: Sequence[Tensor]) -> list[Tensor]:
        """Receive the other party's next message, in the shapes of `like` and on their devices."""
        sizes = [tensor.nelement() for tensor in like]
        expected = WORD_BYTES * sum(sizes)
        buffer = bytearray(HEADER.size + expected)
        filled = self._receive_bytes(memoryview(buffer), HEADER.size)
        number, length, *stamp = HEADER.unpack_from(buffer)
        if (number, length) != (self.rounds, expected):
            raise RunError(
                f"the other party sent message {number} of {length} bytes where message {self.rounds} of {expected} "
                "bytes was due."
            )
        self._receive_bytes(memoryview(buffer)[filled:], len(buffer) - filled)
        self.received += length
        self._delay_delivery(tuple(stamp), length)
        words = torch.frombuffer(buffer, dtype=torch.long)[HEADER.size // WORD_BYTES :]
        pieces = zip(torch.split(words, sizes), like, strict=True)
        return [piece.view(tensor.shape).to(tensor.device) for piece, tensor in pieces]

    def _receive_bytes(self, buffer: memoryview, minimum: int) -> int:
        """Receive at least `minimum` bytes; if sending has failed, raise that failure instead."""
        try:
            return receive_at_least(self.connection, buffer, minimum)
        except RunError as error:
            raise self.failure or error from None

    def _delay_delivery(self, stamp: ChainStamp, length: int) -> None:
        """Wait until the imitated network would have delivered a message of `length` bytes."""
        due = None
        if self.network:
            self.link_free_at = max(self.link_free_at, stamp[0]) + 8 * length / self.network.bandwidth
            due = self.link_free_at + self.network.latency
            _sleep_until(due)
        self.critical_path.on_receive(stamp, due)

    def _run_sender(self) -> None:
        """Send queued messages in a thread; a failure shuts the connection, which wakes the receiving thread."""
        try:
            while message := self.outbox.get():
                for piece in message:
                    send_all(self.connection, piece)
                self.sent_count += 1
        except RunError as error:
            self.failure = error
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Send all queued messages; the connection is then free for other uses."""
        self.outbox.put(None)
        self.sender.join()
        if self.failure:
            raise self.failure

    def close(self) -> None:
        """Send all queued messages, then close the connection."""
        try:
            self.finish()
        finally:
            self.connection.close()


def _sleep_until(due: float) -> None:
    """Sleep most of the time and spin for the rest, because a sleep overshoots by a tenth of a millisecond and more."""
    if (left := due - time.monotonic()) > SPIN_S:
        time.sleep(left - SPIN_S)
    while time.monotonic() < due:
        pass


def _combine_shares(own_share: Tensor, peer_share: Tensor, op: Any) -> Tensor:
    """Return the value of two shares, their XOR or their sum in the ring; it overwrites `peer_share`."""
    return peer_share.bitwise_xor_(own_share) if op == ReduceOp.BXOR else peer_share.add_(own_share)


def benchmark_link(link: Link) -> dict[str, float]:
    """Return the seconds of a round and of a megabyte each way, without an imitated network.

    Both parties call this at the same time, before a run and outside of its counters. The values come from the medians
    of 25 exchanges of one word, and of 9 of one megabyte.
    """
    network, link.network = link.network, None
    small, large = (
        median(_time_exchange(link, torch.zeros(words, dtype=torch.long)) for _ in range(times))
        for words, times in ((1, 25), (1_000_000 // WORD_BYTES, 9))
    )
    link.network = network
    return {"round_seconds": small, "megabyte_seconds": max(0.0, large - small)}


def _time_exchange(link: Link, words: torch.Tensor) -> float:
    started = time.perf_counter()
    link.all_reduce(words)
    return time.perf_counter() - started
