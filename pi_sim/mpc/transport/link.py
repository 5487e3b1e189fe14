"""Where a party's seconds go: along the chain of computing and messages that its result had to wait for.

Two parties compute at once and wait for one another, so what one of them spends in its link is not what the network
took: the other party may still have been computing, or a message may have travelled while this one computed. A message
therefore carries the chain of its sender. Whoever had to wait for the message continues that chain, whoever came late
continues its own: the critical path of the run, in which every second belongs to the network or to one party.
"""

# MERGED: The link: CrypTen's communicator over a connection of two parties, with a counter and a clock of its own. A message is a header (its number, payload length, and stamp of time) and the payload, the shares as little-endian 64-bit words. Both parties send and receive at once; a network can be imitated by holding arrived messages back.  # noqa: E501
# MERGED: What the connection itself takes: measured before a run, outside of what is counted, without an imitated network.  # noqa: E501

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
from pi_sim.mpc.transport import wire
from pi_sim.network import Network

ChainStamp = tuple[float, ...]
"""When a message was sent, and its sender's chain by then: network, delay, own computing, the other party's."""


class CriticalPath:
    """One party's chain, in seconds: in the `network`, computing itself (`mine`), and the other party's (`theirs`).

    `delay` is by how much messages came later than an imitated network would have delivered them, because handling
    them takes time, or because something else kept the machine busy.
    Times are those of the system's monotonic clock, which all processes of one machine share. Parties on two machines
    have no `common` clock; all their waiting counts as network.
    """

    def __init__(self, common: bool) -> None:
        self.common_clock = common
        self.network = self.delay = self.own_compute = self.peer_compute = 0.0
        self.since = time.monotonic()

    def on_send(self) -> ChainStamp:
        """This party has computed what it sends, or what it waits for."""
        now = time.monotonic()
        self.own_compute += now - self.since
        self.since = now
        return now, self.network, self.delay, self.own_compute, self.peer_compute

    def on_receive(self, stamp: ChainStamp, due: float | None) -> None:
        """A message has been received; by an imitated network it was `due` at a certain time."""
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
WORD = 8
SMALL_MESSAGE_BYTES = 2**14
"""Bytes that any socket takes at once. The parties go in step: whoever sends has had all earlier messages taken."""
SPIN_S = 150e-6
"""Seconds by which a sleep may overshoot."""


class Link(Communicator):  # type: ignore[misc]
    """One party's end of a two-party connection.

    `rounds` and `sent` count the payload handed to the connection, `received` what came out of it: one party's `sent`
    must be the other's `received`. CrypTen's own counter (`comm_rounds`, `comm_bytes`: sent plus received) runs beside
    them and shares no code with them. `timeline` tells where time went; parties on two machines have no common clock.
    Every failure of the connection is a `RunError`: the other party closed it, was silent for longer than the socket's
    time-out, or sent something else than the protocol's next message.
    """

    BYTES_PER_ELEMENT = WORD

    def __init__(
        self, connection: wire.Connection, rank: int, network: Network | None = None, common_clock: bool = True
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

    # What CrypTen calls.

    def get_rank(self) -> int:
        return self.rank

    def get_world_size(self) -> int:
        return 2

    @log_communication  # type: ignore[untyped-decorator]
    def all_reduce(self, shares: Any, op: Any = ReduceOp.SUM, batched: bool = False) -> Any:
        """Open to both: one round, each sends its shares. A batch of tensors is one message."""
        mine = shares if batched else [shares]
        self._send_message(mine)
        opened = [_combine_shares(one, other, op) for one, other in zip(mine, self._receive_message(mine), strict=True)]
        return opened if batched else opened[0]

    @log_communication  # type: ignore[untyped-decorator]
    def reduce(self, share: Tensor, dst: int, op: Any = ReduceOp.SUM) -> Tensor | None:
        """Open to `dst` alone: one round in which the other party sends its share."""
        if self.rank != dst:
            self._send_message([share])
            return None
        self.rounds += 1
        self.critical_path.on_send()
        return _combine_shares(share, self._receive_message([share])[0], op)

    # Messages.

    def _send_message(self, tensors: Sequence[Tensor]) -> None:
        """Send a message: a small one at once, a large one from the sending thread, so that both parties can."""
        payloads = [_payload_view(tensor) for tensor in tensors]
        length = sum(map(len, payloads))
        self.rounds += 1
        self.sent += length
        header = HEADER.pack(self.rounds, length, *self.critical_path.on_send())
        if (
            length <= SMALL_MESSAGE_BYTES and self.queued_count == self.sent_count
        ):  # nothing that the sending thread could still be at
            wire.send_all(self.connection, b"".join([header, *payloads]))
        else:
            self.queued_count += 1
            self.outbox.put([header, *payloads])

    def _receive_message(self, like: Sequence[Tensor]) -> list[Tensor]:
        """The other party's next message, in the shapes of `like` and on their devices."""
        sizes = [tensor.nelement() for tensor in like]
        expected = WORD * sum(sizes)
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
        words = torch.frombuffer(buffer, dtype=torch.long)[HEADER.size // WORD :]
        pieces = zip(torch.split(words, sizes), like, strict=True)
        return [piece.view(tensor.shape).to(tensor.device) for piece, tensor in pieces]

    def _receive_bytes(self, buffer: memoryview, least: int) -> int:
        """At least so many bytes; when the connection is down because sending failed, say why that was."""
        try:
            return wire.receive_at_least(self.connection, buffer, least)
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
        """The sending thread: a failure shuts the connection, which ends the receiving side's wait."""
        try:
            while message := self.outbox.get():
                for piece in message:
                    wire.send_all(self.connection, piece)
                self.sent_count += 1
        except RunError as error:
            self.failure = error
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Send what is still waiting; the connection is then free for something else."""
        self.outbox.put(None)
        self.sender.join()
        if self.failure:
            raise self.failure

    def close(self) -> None:
        """Send what is still waiting, then close the connection."""
        try:
            self.finish()
        finally:
            self.connection.close()


def _payload_view(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, in place where it is contiguous."""
    return tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().data


def _sleep_until(due: float) -> None:
    """Sleep most of the time and spin for the rest: a sleep overshoots by a tenth of a millisecond and more."""
    if (left := due - time.monotonic()) > SPIN_S:
        time.sleep(left - SPIN_S)
    while time.monotonic() < due:
        pass


def _combine_shares(mine: Tensor, theirs: Tensor, op: Any) -> Tensor:
    """The value that two shares hold: their sum in the ring, or their exclusive or."""
    return theirs.bitwise_xor_(mine) if op == ReduceOp.BXOR else theirs.add_(mine)


SMALL_EXCHANGES = 25
LARGE_EXCHANGES = 9
MEGABYTE = 1_000_000


def benchmark_link(link: Link) -> dict[str, float]:
    """Seconds of a round, and what a megabyte each way adds to it: both parties ask at the same time.

    Medians of exchanges of one word, and of one megabyte.
    """
    network, link.network = link.network, None
    small, large = (
        median(_time_exchange(link, torch.zeros(words, dtype=torch.long)) for _ in range(times))
        for words, times in ((1, SMALL_EXCHANGES), (MEGABYTE // WORD, LARGE_EXCHANGES))
    )
    link.network = network
    return {"round_seconds": small, "megabyte_seconds": max(0.0, large - small)}


def _time_exchange(link: Link, words: torch.Tensor) -> float:
    started = time.perf_counter()
    link.all_reduce(words)
    return time.perf_counter() - started
